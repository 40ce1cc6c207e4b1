/** What the scripts share. */
import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

/** What the addon of this machine is built for, as lib/loader.ts names it. */
export const target = { linux: `linux-${process.arch}-${isMusl() ? 'musl' : 'gnu'}`, win32: `win32-${process.arch}-msvc` }[process.platform]
  ?? `${process.platform}-${process.arch}`
export const addon = `nvent-native.${target}.node`

/** Where Cargo builds. */
export const targetDir = resolve(root, process.env.CARGO_TARGET_DIR ?? 'target')

/** Returns where a build of the addon leaves the types of what it exports, for scripts/types.mjs. */
export function bindingTypes(profile) {
  const dir = join(targetDir, 'binding-types', profile)
  return { dir, file: join(dir, 'nvent-native') }
}

function isMusl() {
  return process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime
}

/** Runs a command to its end, and ends this process where it fails. */
export function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (error) console.error(`${command}: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}
