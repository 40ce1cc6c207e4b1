/**
 * The programs that building and testing start, looked for before anything is compiled. As root on a system with apt
 * missing ones are installed; elsewhere this ends at once with the command that installs them.
 *
 * `node scripts/tools.mjs` looks for all of them.
 */
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** `commands`: any of these will do. The rest: the package's name for each package manager. */
const TOOLS = {
  'cc': { commands: ['cc', 'gcc', 'clang', 'cl'], apt: 'build-essential', dnf: 'gcc', pacman: 'gcc', brew: 'gcc' },
  'redis-server': { commands: ['redis-server'], apt: 'redis-server', dnf: 'redis', pacman: 'redis', brew: 'redis' },
  'chromium': { commands: ['chromium', 'chromium-browser', 'google-chrome'], apt: 'chromium', dnf: 'chromium', pacman: 'chromium', brew: 'chromium' },
}

const INSTALLERS = [
  { name: 'apt', command: 'apt-get', install: 'apt-get install -y --no-install-recommends', asRoot: true },
  { name: 'dnf', command: 'dnf', install: 'dnf install -y', asRoot: true },
  { name: 'pacman', command: 'pacman', install: 'pacman -S --needed', asRoot: true },
  { name: 'brew', command: 'brew', install: 'brew install', asRoot: false },
]

/** Returns whether a command is on the PATH. */
export function isOnPath(command) {
  const endings = process.platform === 'win32' ? ['.exe', '.cmd', '.bat'] : ['']
  return (process.env.PATH ?? '').split(delimiter).some(dir => endings.some((ending) => {
    try {
      accessSync(join(dir, command + ending), constants.X_OK)
      return dir !== ''
    }
    catch {
      return false
    }
  }))
}

/**
 * Returns the tools that are missing and what to run for them: `install`, or only `advice` where no package manager is
 * known. `has` says whether a command is there.
 */
export function missingTools(names, { has = isOnPath, isRoot = process.getuid?.() === 0 } = {}) {
  const missing = names.filter(name => !TOOLS[name].commands.some(has))
  const installer = INSTALLERS.find(({ command }) => has(command))
  const advice = []
  let install
  if (missing.length > 0 && installer) {
    const sudo = installer.asRoot && !isRoot ? 'sudo ' : ''
    install = `${sudo}${installer.install} ${missing.map(name => TOOLS[name][installer.name]).join(' ')}`
    advice.push(install)
  }
  else if (missing.length > 0) advice.push(`install, with your system's package manager, and put on the PATH: ${missing.join(', ')}`)
  if (!has('cargo')) {
    missing.push('cargo')
    advice.push('install Rust (https://rustup.rs), then open a new shell')
  }
  return { missing, install, advice, automatic: missing.length > 0 && has('cargo') && installer?.name === 'apt' && isRoot }
}

/** Makes sure that the tools are there; ends the process where they cannot be installed here. */
export function ensureTools(names = Object.keys(TOOLS)) {
  const { missing, install, advice, automatic } = missingTools(names)
  if (missing.length === 0) return
  if (automatic) {
    console.log(`missing: ${missing.join(', ')}; running: ${install}`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    for (const command of ['apt-get update -q', install]) {
      const [program, ...args] = command.split(' ')
      spawnSync(program, args, { env, stdio: ['ignore', 'inherit', 'inherit'] })
    }
    const left = missingTools(names).missing
    if (left.length === 0) return
    console.error(`still missing: ${left.join(', ')}; the command above says why`)
    process.exit(1)
  }
  console.error([`missing: ${missing.join(', ')}. Run this, then try again:`, ...advice.map(line => `  ${line}`)].join('\n'))
  process.exit(1)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) ensureTools()
