/* eslint-disable @typescript-eslint/no-require-imports -- bundlers and @vercel/nft only follow literal requires */
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'

/**
 * Loads the addon: the file beside the package in a checkout, else the package of this platform. Each target has literal
 * `require`s of its own, so that bundlers and @vercel/nft find them. Not the loader that @napi-rs/cli generates: that one's
 * messages know no bundle and no optional dependency that was left out, and it starts `ldd`.
 */

/** The two places of each target's addon. The keys are `<platform>-<arch>`, with the C library on Linux. */
const TARGETS: Record<string, { file: () => unknown, package: () => unknown }> = {
  'linux-x64-gnu': { file: () => require('../nvent-native.linux-x64-gnu.node'), package: () => require('nvent-native-linux-x64-gnu') },
  'linux-x64-musl': { file: () => require('../nvent-native.linux-x64-musl.node'), package: () => require('nvent-native-linux-x64-musl') },
  'linux-arm64-gnu': { file: () => require('../nvent-native.linux-arm64-gnu.node'), package: () => require('nvent-native-linux-arm64-gnu') },
  'linux-arm64-musl': { file: () => require('../nvent-native.linux-arm64-musl.node'), package: () => require('nvent-native-linux-arm64-musl') },
  'darwin-x64': { file: () => require('../nvent-native.darwin-x64.node'), package: () => require('nvent-native-darwin-x64') },
  'darwin-arm64': { file: () => require('../nvent-native.darwin-arm64.node'), package: () => require('nvent-native-darwin-arm64') },
  'win32-x64-msvc': { file: () => require('../nvent-native.win32-x64-msvc.node'), package: () => require('nvent-native-win32-x64-msvc') },
  'win32-arm64-msvc': { file: () => require('../nvent-native.win32-arm64-msvc.node'), package: () => require('nvent-native-win32-arm64-msvc') },
}

/** Returns the target of this process. On Linux that depends on the C library, not only on the machine. */
function currentTarget(): string {
  const { platform, arch } = process
  if (platform === 'linux') return `linux-${arch}-${isMusl() ? 'musl' : 'gnu'}`
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`
}

/** Returns whether this process, rather than the system, uses musl: its C library is among the files that are mapped. */
function isMusl(): boolean {
  try {
    const maps = readFileSync('/proc/self/maps', 'latin1')
    if (/\/libc(?:\.so\.6|-2\.\d+\.so)$/m.test(maps)) return false
    if (/\/ld-musl-|\/libc\.musl-|-linux-musl\/libc\.so$/m.test(maps)) return true
  }
  catch {
    // No /proc, or not for this process.
  }
  // Takes tens of milliseconds. Bun and Deno have it as well.
  const { header } = (process.report?.getReport() ?? {}) as { header?: { glibcVersionRuntime?: string } }
  return header !== undefined && !header.glibcVersionRuntime
}

/** Returns the first line of an error, without the list of requiring modules. */
const reason = (error: unknown): string => String((error as Error)?.message ?? error).split('\n')[0]!
const isThere = (error: unknown): boolean => (error as NodeJS.ErrnoException)?.code === 'ERR_DLOPEN_FAILED'

/** Returns the addon, or throws an error that says what is missing and what to do. */
export function loadAddon(): any {
  const target = currentTarget()
  const known = TARGETS[target]
  if (!known) {
    throw new Error(`nvent-native has no binary for ${target}. There are binaries for ${Object.keys(TARGETS).join(', ')}.`)
  }
  const tried: string[] = []
  const name = `nvent-native-${target}`
  let missing = true
  for (const [where, load] of [[`nvent-native.${target}.node`, known.file], [name, known.package]] as const) {
    try {
      return load()
    }
    catch (error) {
      tried.push(`  ${where}: ${reason(error)}`)
      // A binary that is there but does not load is the one that counts.
      if (isThere(error)) missing = false
    }
  }
  throw new Error([
    `nvent-native could not load its binary for ${target} (Node ${process.versions.node}).`,
    ...tried,
    missing ? advice(name) : 'The binary is there but does not load: is it of another platform or C library? Remove node_modules and install again on this machine.',
  ].join('\n'))
}

function advice(name: string): string {
  const root = path.join(__dirname, '..')
  if (existsSync(path.join(root, 'Cargo.toml'))) return 'This is a checkout: install Rust (https://rustup.rs) and run `npm run build`.'
  if (!existsSync(path.join(root, 'package.json')) || !isOwn(path.join(root, 'package.json'))) {
    return 'This copy of nvent-native is inside a bundle. Mark `nvent-native` as external in your bundler, so that it is loaded from node_modules.'
  }
  const others = Object.keys(TARGETS).map(target => `nvent-native-${target}`).filter(other => existsSync(path.join(root, '..', other)))
  if (others.length > 0) {
    return `${others.join(' and ')} is installed instead: node_modules is from another platform, or another C library (Alpine has musl, most others glibc). `
      + 'Install again on the machine that runs it, or for that machine with the options --os, --cpu and --libc of npm.'
  }
  return `The package ${name} is not installed. It is an optional dependency of nvent-native: install again without `
    + '--omit=optional (or --no-optional), on the platform that runs it, and with a lock file that has that platform.'
}

function isOwn(file: string): boolean {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).name === 'nvent-native'
  }
  catch {
    return false
  }
}
