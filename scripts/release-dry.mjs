/**
 * `npm run release:dry`: builds what can be built here, packs every package, publishes them to a registry of its own, installs
 * them from there into empty projects, and runs one smoke script on each runtime, and two Nuxt apps. It publishes nothing
 * elsewhere, and ends with a table: each cell ran, or says why not.
 *
 *   --addons <directory>  uses the addons (`nvent-native.<target>.node`) that are there, and builds no other
 *   --host                only this machine's own target
 *   --musl <directory>    musl's loaders (`ld-musl-x86_64.so.1`, `ld-musl-aarch64.so.1`), by default /lib. The Node that is
 *                         used for musl needs 1.2.4 or later: Debian's package `musl` has it from Debian 13 on.
 *
 * Other Linux targets need cargo-zigbuild and zig (`pip install cargo-zigbuild ziglang`), and to run on arm64 Debian's packages
 * qemu-user and libc6-arm64-cross.
 */
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pack, shortName, sizeProblem, stage, targets } from './pack.mjs'
import { foreignSymbols } from './release/links.mjs'
import { NUXT_APPS, runNuxt } from './release/nuxt.mjs'
import { freePort, startRegistry } from './release/registry.mjs'
import { installRuntimes, RUNTIMES } from './release/runtimes.mjs'
import { root, target as host } from './shared.mjs'
import { isOnPath } from './tools.mjs'

const MINUTES = 60_000

const args = process.argv.slice(2)
const directory = option => args.includes(option) ? resolve(args[args.indexOf(option) + 1]) : undefined
const given = directory('--addons')
const work = join(root, 'target/release-dry')
const addons = given ?? join(work, 'addons')
const triples = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).napi.targets

const failures = []
const notBuilt = new Map()
const projects = new Map()
if (!given) triples.forEach(build)
const built = targets().filter(target => existsSync(join(addons, `nvent-native.${target}.node`)))
built.forEach(checkLinks)
const packed = pack(stage(join(work, 'staged'), addons), work)
packed.forEach(checkSize)
const runtimeOf = installRuntimes(join(work, 'runtimes'), directory('--musl'))
const registry = await startRegistry(join(work, 'registry'))
// The root last: from then on everything that it depends on is there.
packed.forEach(({ path }) => registry.publish(path))
const redis = await startRedis()
const rows = targets().map(target => [target, ...RUNTIMES.map(runtime => shown(target, runtime, tried(target, runtime)))])
for (const app of NUXT_APPS) rows.push([`${app.name}, no Rust`, ...await nuxtCells(app)])
redis?.stop()
registry.stop()
for (const project of projects.values()) rmSync(project, { recursive: true, force: true })
report()

/** Builds a target's addon, or notes why not. */
function build(triple) {
  const target = shortName(triple)
  mkdirSync(addons, { recursive: true })
  rmSync(join(addons, `nvent-native.${target}.node`), { force: true })
  const flags = flagsFor(triple, target)
  if (!flags) return
  const params = ['build', '--platform', '--release', '--no-js', '--output-dir', addons, ...flags]
  console.log(`\n── ${target}: napi ${params.join(' ')}`)
  const { status } = spawnSync(process.execPath, [join(root, 'node_modules/@napi-rs/cli/dist/cli.js'), ...params], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status === 0) return
  failures.push(`${target}: the build failed`)
  notBuilt.set(target, 'build failed')
}

/** Returns how `napi build` is called for a target. On Linux releases are built with zig, against an old glibc or musl. */
function flagsFor(triple, target) {
  const crossable = process.platform === 'linux' && triple.includes('linux') && isOnPath('cargo-zigbuild')
  if (target === host && !crossable) return ['--target', triple]
  if (target !== host && args.includes('--host')) return void notBuilt.set(target, 'not run: --host')
  if (!triple.includes('linux') || process.platform !== 'linux') return void notBuilt.set(target, 'not run: workflow only')
  if (!crossable) return void notBuilt.set(target, 'not run: no cargo-zigbuild')
  spawnSync('rustup', ['target', 'add', triple], { cwd: root, stdio: 'ignore' })
  const { stdout = '' } = spawnSync('rustc', ['--print', 'target-libdir', '--target', triple], { cwd: root, encoding: 'utf8' })
  if (!existsSync(stdout.trim())) return void notBuilt.set(target, `not run: no standard library, and rustup cannot add it`)
  return ['--cross-compile', '--target', triple.endsWith('gnu') ? `${triple}.2.17` : triple]
}

/** Checks that an addon for Linux needs no newer C library than is promised. */
function checkLinks(target) {
  // Without zig this machine's own target is linked against its own glibc.
  if (!target.startsWith('linux') || target === host && !isOnPath('cargo-zigbuild')) return
  const found = foreignSymbols(readFileSync(join(addons, `nvent-native.${target}.node`)), target)
  if (found.length > 0) failures.push(`${target} needs ${found.join(', ')}`)
}

function checkSize(tarball) {
  console.log(`${tarball.name}: ${(tarball.unpackedSize / 1e6).toFixed(1)} MB unpacked`)
  const problem = sizeProblem(tarball)
  if (problem) failures.push(problem)
}

/** Runs the smoke script of a target on a runtime. Returns the cell. */
function tried(target, name) {
  if (!built.includes(target)) return notBuilt.get(target) ?? 'not run: not built'
  const { command, reason, note } = runtimeOf(target, name)
  if (!command) return `not run: ${reason}`
  if (!existsSync(command[0]) && !isOnPath(command[0])) return 'not run: cannot be had'
  const began = performance.now()
  try {
    const { status, signal, stdout, stderr } = spawnSync(command[0], [...command.slice(1), 'smoke.mjs'], {
      cwd: projectOf(target), encoding: 'utf8', timeout: 5 * MINUTES, env: { ...process.env, REDIS_URL: redis?.url ?? '' },
    })
    if (status !== 0 || !stdout.includes('smoke: ok')) throw new Error(`${signal ?? `exit code ${status}`}\n${stdout}${stderr}`)
  }
  catch (error) {
    failures.push(`${target} on ${name}: ${error.message}`)
    return 'FAILED'
  }
  const notes = [note, !redis && 'no Redis'].filter(Boolean)
  return `ok, ${((performance.now() - began) / 1000).toFixed(1)} s${notes.length > 0 ? ` (${notes.join(', ')})` : ''}`
}

/** Prints a cell as soon as it is known. */
function shown(row, column, cell) {
  if (!cell.startsWith('not run')) console.log(`${row} on ${column}: ${cell}`)
  return cell
}

/** Returns an empty project into which npm has installed the package as on a machine of the target. */
function projectOf(target) {
  if (projects.has(target)) return projects.get(target)
  const project = mkdtempSync(join(tmpdir(), 'nvent-release-'))
  projects.set(target, project)
  const [platform, cpu, libc] = target.split('-')
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }))
  registry.install(project, 'nvent-native', '--os', platform, '--cpu', cpu, ...platform === 'linux' ? ['--libc', libc === 'gnu' ? 'glibc' : libc] : [])
  const installed = readdirSync(join(project, 'node_modules')).filter(name => name.startsWith('nvent-native-'))
  if (installed.join() !== `nvent-native-${target}`) failures.push(`npm installed ${installed.join(', ') || 'no platform package'} for ${target}`)
  copyFileSync(join(root, 'scripts/smoke.mjs'), join(project, 'smoke.mjs'))
  return project
}

/** Builds and runs a fresh Nuxt app on the versions of Node that it is for. Returns the cells. */
async function nuxtCells(app) {
  const cells = []
  for (const name of RUNTIMES) {
    const { command, reason } = built.includes(host) ? runtimeOf(host, name) : { reason: 'not built' }
    if (!app.runtimes.includes(name)) cells.push(`not run: ${name.startsWith('Node') ? app.otherwise : 'Nuxt is tried on Node'}`)
    else if (!command) cells.push(`not run: ${reason}`)
    else {
      const began = performance.now()
      try {
        await runNuxt(app, command[0], registry)
        cells.push(shown(app.name, name, `ok, ${((performance.now() - began) / 1000).toFixed(0)} s`))
      }
      catch (error) {
        failures.push(`${app.name} on ${name}: ${error.message}`)
        cells.push(shown(app.name, name, 'FAILED'))
      }
    }
  }
  return cells
}

async function startRedis() {
  if (!isOnPath('redis-server')) return
  const port = await freePort()
  const child = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise(ready => child.stdout.on('data', text => String(text).includes('Ready to accept') && ready()))
  return { url: `redis://127.0.0.1:${port}`, stop: () => child.kill() }
}

function report() {
  const table = [['target', ...RUNTIMES], ...rows]
  const widths = table[0].map((_, column) => Math.max(...table.map(row => row[column].length)))
  console.log(`\n${table.map(row => row.map((cell, column) => cell.padEnd(widths[column])).join('  ').trimEnd()).join('\n')}`)
  const tarballs = readdirSync(work).filter(name => name.endsWith('.tgz'))
  console.log(`\n${tarballs.length} tarballs in target/release-dry; nothing was published elsewhere`)
  if (failures.length > 0) console.error(`\n${failures.join('\n\n')}`)
  process.exitCode = failures.length > 0 ? 1 : 0
}
