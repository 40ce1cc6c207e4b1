/**
 * `npm run bench`: everything side by side on this machine. Prints tables of ratios, and writes results.json,
 * docs/benchmarks.md, the chart and the README's tables. `--quick` is one short round of what needs no packages, servers
 * or writing; names of areas limit the run to these, and then nothing is written either. `--report` measures nothing and
 * writes the documents from results.json.
 */
import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { chart } from './chart.mjs'
import { markdown, summary, text } from './report.mjs'

const AREAS = {
  memory: 'Memory store',
  file: 'File store',
  start: 'Start',
  redis: 'Redis store',
  stream: 'Delivery in memory',
  paths: 'Delivery on files and Redis',
  feed: 'Following the log',
  flow: 'Flows',
  growth: 'How cost grows',
  footprint: 'Memory taken',
}

const here = path => fileURLToPath(new URL(path, import.meta.url))
if (process.argv.includes('--report')) {
  document(JSON.parse(readFileSync(here('results.json'), 'utf8')))
  process.exit()
}
const { quick, only } = parsed(process.argv.slice(2))
const options = quick ? { rounds: 1, scale: 0.01 } : { rounds: 7, scale: 1 }
const areas = only.length > 0 ? only : quick ? ['memory', 'stream', 'flow', 'footprint'] : Object.keys(AREAS)
const began = Date.now()

if (!quick) prepare()
const results = { machine: machine(), rounds: options.rounds, areas: [] }
for (const area of areas) {
  process.stderr.write(`${AREAS[area]}\n`)
  results.areas.push({ area, title: AREAS[area], rows: await run(area) })
}
results.seconds = Math.round((Date.now() - began) / 1000)
console.log(text(results))
if (!quick && only.length === 0) write(results)

function parsed(args) {
  const only = args.filter(arg => arg !== '--quick')
  const unknown = only.filter(name => !Object.hasOwn(AREAS, name))
  if (unknown.length > 0) {
    console.error(`not known: ${unknown.join(', ')}\nusage: npm run bench -- [--quick] [${Object.keys(AREAS).join(' | ')}] …`)
    process.exit(2)
  }
  return { quick: args.includes('--quick'), only }
}

/** A release build, the peers, and a server to measure against. */
function prepare() {
  must('cargo build --release', process.execPath, ['scripts/build.mjs'], here('..'))
  // The compiler that the peers' own install steps run is no part of the measuring either; it is a minute.
  if (!existsSync(here('node_modules/.package-lock.json'))) must('npm ci in bench/', 'npm', ['ci'], here('.'))
  must('redis-server (Debian: apt install redis-server)', 'redis-server', ['--version'], here('.'))
}

function must(what, command, args, cwd) {
  const { error, status } = spawnSync(command, args, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  if (!error && status === 0) return
  console.error(`the benchmarks need: ${what}${error ? ` (${error.message})` : ''}`)
  process.exit(1)
}

/** Runs an area in a process of its own, with a heap and threads of its own. */
async function run(area) {
  mkdirSync(here('.data'), { recursive: true })
  const directory = mkdtempSync(here('.data/'))
  const child = fork(here('area.mjs'), [JSON.stringify({ area, ...options })], {
    execArgv: ['--expose-gc'],
    // JSON has no Infinity, which is the ratio to nothing.
    serialization: 'advanced',
    env: { ...process.env, NVENT_BENCH_DIR: process.env.NVENT_BENCH_DIR ?? directory },
  })
  const rows = once(child, 'message')
  const ended = once(child, 'exit')
  const [result] = await Promise.race([rows, ended.then(([code]) => [code])])
  if (!Array.isArray(result)) {
    console.error(`${AREAS[area]} ended with code ${result} before it was done`)
    process.exit(1)
  }
  await ended
  rmSync(directory, { recursive: true, force: true })
  return result
}

function machine() {
  const [{ model }] = cpus()
  return {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    cpu: model.trim(),
    cores: cpus().length,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    platform: `${process.platform} ${process.arch}`,
  }
}

function write(results) {
  const rounded = JSON.stringify(results, (_, value) => typeof value === 'number' ? Number(value.toPrecision(4)) : value, 1)
  writeFileSync(here('results.json'), `${rounded}\n`)
  // The documents can be written again from the file: both have its numbers.
  document(JSON.parse(rounded))
}

/** Writes what is read by people. */
function document(results) {
  mkdirSync(here('../docs'), { recursive: true })
  writeFileSync(here('../docs/bench.svg'), chart(results))
  writeFileSync(here('../docs/benchmarks.md'), markdown(results))
  const readme = readFileSync(here('../README.md'), 'utf8')
  const place = /<!-- bench -->.*<!-- \/bench -->/s
  if (!place.test(readme)) {
    console.error('README.md has no place for the tables: <!-- bench --> and <!-- /bench -->')
    process.exit(1)
  }
  writeFileSync(here('../README.md'), readme.replace(place, () => `<!-- bench -->\n${summary(results)}\n<!-- /bench -->`))
}
