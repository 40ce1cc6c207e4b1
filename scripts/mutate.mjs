/**
 * Breaks the code of lib and nuxt in one place at a time and runs the tests that reach it: where all of them pass, a test is
 * missing, or the code has no effect. docs/mutation-testing.md says how to read the result. Not part of the test run: it takes hours.
 *
 *   node scripts/mutate.mjs [--files lib/store.ts,lib/native/] [--mutators "await removed"] [--sample 40] [--minutes 60] [--seconds 60]
 *     [--lanes 2] [--tests __test__/bus.test.ts] [--again] [--fresh]
 *
 * All mutants are compiled into one build (see mutators.mjs), in a copy of the repository under target/mutation. What each test
 * reaches is recorded once. Results are kept there: a second call goes on where the first ended. `--tests` limits the tests, or adds
 * to those known; `--seconds` is how long the tests of a mutant may take by their own time; `--again` judges anew what was not noticed. `--fresh` begins anew, which a change of the code needs.
 */
import { execFileSync, spawn } from 'node:child_process'
import { appendFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'
import { instrument } from './mutators.mjs'
import { addon, root } from './shared.mjs'

const { values: args } = parseArgs({
  options: {
    files: { type: 'string', default: 'lib/,nuxt/' }, sample: { type: 'string' }, minutes: { type: 'string', default: '600' },
    fresh: { type: 'boolean' }, only: { type: 'string' }, tests: { type: 'string', default: '' }, lanes: { type: 'string', default: '1' }, again: { type: 'boolean' },
    mutators: { type: 'string' }, seconds: { type: 'string', default: '60' },
  },
})

const work = join(root, 'target', 'mutation')
const at = file => join(work, file)
const state = name => at(`.mutation/${name}`)
const MUTANTS = state('mutants.json')
const COVERAGE = state('coverage.ndjson')
const TIMES = project => state(`times-${project}.json`)
const RESULTS = state('results.ndjson')

/** Not mutated: what runs in browsers, and what chooses the binary of a platform. */
const LEFT_OUT = ['lib/types/', 'lib/native/loader.ts', 'nuxt/env.d.ts', 'nuxt/types.ts', 'nuxt/runtime/realtime/useFlowRun.ts']

/** A mutant that is noticed by these tests costs little. */
const QUICK_TESTS = 10
const QUICK_FILES = 2
/** The tests of a mutant run at most so long by their own time, in ms; what is left out is in the result. */
const MAX_TIME = Number(args.seconds) * 1_000
/** A run takes at most so many times as long as it did without a mutant, and this much longer, in ms. */
const SLACK = 45_000

/** Distinguishes the mutants of one test from those of another, also in the processes that it starts. */
const SETUP = `import { relative } from 'node:path'
import { appendFileSync } from 'node:fs'
import { afterAll, afterEach, beforeEach, expect } from 'vitest'

const log = process.env.NVENT_MUTANT_COVERAGE
if (log) {
  const file = process.env.NVENT_MUTANT_FILE = relative(process.cwd(), expect.getState().testPath)
  let reached = globalThis.__nventMutantReached ??= new Set()
  const flush = (test) => {
    if (reached.size > 0) appendFileSync(log, JSON.stringify([file, test, [...reached]]) + '\\n')
    reached.clear()
  }
  const name = task => task.suite ? [name(task.suite), task.name].filter(Boolean).join(' ') : task.name
  beforeEach(({ task }) => {
    flush('')
    process.env.NVENT_MUTANT_TEST = name(task)
  })
  afterEach(({ task }) => {
    flush(name(task))
    process.env.NVENT_MUTANT_TEST = ''
  })
  afterAll(() => flush(''))
}
`
const CONFIG = `import config from './vitest.config.mjs'

Object.assign(config.test, { setupFiles: ['./mutation.setup.mjs'], testTimeout: 20_000, hookTimeout: 60_000 })
export default config
`

const describe = ({ file, line, column, mutator, code }) => `${file}:${line}:${column} ${mutator}: ${code}`
/** Returns the newest result of each mutant. */
const results = () => existsSync(RESULTS) ? [...new Map(readFileSync(RESULTS, 'utf8').trim().split('\n').map(line => JSON.parse(line)).map(one => [one.id, one])).values()] : []

const started = Date.now()
const deadline = started + Number(args.minutes) * 60_000
if (args.fresh) rmSync(work, { recursive: true, force: true })
if (!existsSync(MUTANTS)) await prepare()
const projects = args.files.includes('nuxt') ? ['js', 'nuxt'] : ['js']
for (const project of projects) await measure(project)
await run()
report()

/** Makes the copy, with all mutants in its build. */
async function prepare() {
  mkdirSync(at('.mutation'), { recursive: true })
  for (const file of execFileSync('git', ['ls-files'], { cwd: root, encoding: 'utf8' }).trim().split('\n')) {
    if (existsSync(join(root, file))) cpSync(join(root, file), at(file))
  }
  symlinkSync(join(root, 'node_modules'), at('node_modules'))
  cpSync(join(root, addon), at(addon))
  cpSync(join(root, 'dist'), at('dist'), { recursive: true })
  const mutants = []
  const files = execFileSync('git', ['ls-files', 'lib', 'nuxt'], { cwd: root, encoding: 'utf8' }).trim().split('\n')
  for (const file of files.filter(file => file.endsWith('.ts') && !file.endsWith('.d.ts') && !LEFT_OUT.some(name => file.startsWith(name)))) {
    writeFileSync(at(file), instrument(readFileSync(join(root, file), 'utf8'), file, mutant => mutants.push(mutant) - 1))
  }
  const face = { bundle: true, format: 'cjs', platform: 'node', target: 'node20', external: ['*.node', 'nvent-native-*', '@opentelemetry/api'], logLevel: 'error', absWorkingDir: work }
  await build({ ...face, entryPoints: ['lib/index.ts'], outfile: 'dist/index.cjs' })
  await build({ ...face, entryPoints: ['lib/cli/main.ts'], outfile: 'dist/cli.cjs' })
  await build({ absWorkingDir: work, entryPoints: files.filter(file => file.startsWith('nuxt/') && !file.endsWith('.d.ts') && file.endsWith('.ts')), outdir: 'dist/nuxt', outbase: 'nuxt', format: 'esm', target: 'node20', logLevel: 'error' })
  writeFileSync(at('mutation.setup.mjs'), SETUP)
  writeFileSync(at('mutation.config.mjs'), CONFIG)
  writeFileSync(MUTANTS, JSON.stringify(mutants))
  console.log(`${mutants.length} mutants in ${new Set(mutants.map(({ file }) => file)).size} files`)
}

/** Runs tests once without a mutant: which mutants each reaches, and how long it takes. A file that fails is left out. */
async function measure(project) {
  const times = existsSync(TIMES(project)) ? JSON.parse(readFileSync(TIMES(project), 'utf8')) : {}
  const asked = args.tests.split(',').filter(file => file !== '' && !(file in times) && file.startsWith('__test__/nuxt/') === (project === 'nuxt'))
  if (asked.length === 0 && Object.keys(times).length > 0) return
  const json = state(`${project}.json`)
  await vitest(project, asked, { NVENT_MUTANT_COVERAGE: COVERAGE, NVENT_TEST_BUILDS: state('builds') }, 3_600_000, ['--reporter=default', '--reporter=json', `--outputFile.json=${json}`])
  for (const { name, status, assertionResults } of JSON.parse(readFileSync(json, 'utf8')).testResults) {
    const file = name.slice(work.length + 1)
    if (status === 'passed') times[file] = { project, tests: Object.fromEntries(assertionResults.map(({ fullName, duration }) => [fullName, Math.ceil(duration ?? 0)])) }
    else console.log(`left out, as it fails without a mutant: ${file}`)
  }
  writeFileSync(TIMES(project), JSON.stringify(times))
}

/** Runs vitest in the copy. Resolves with whether all tests passed, or 'timeout'. */
function vitest(project, files, env, timeout, flags = []) {
  const command = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'mutation.config.mjs', '--project', project, '--no-file-parallelism', ...flags, ...files]
  const child = spawn(process.execPath, command, { cwd: work, env: { ...process.env, ...env }, stdio: ['ignore', flags.includes('--bail=1') ? 'ignore' : 'inherit', flags.includes('--bail=1') ? 'ignore' : 'inherit'], detached: true })
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      process.kill(-child.pid, 'SIGKILL')
      resolve('timeout')
    }, timeout)
    child.on('exit', (code) => {
      clearTimeout(timer)
      // What a test that failed has left running.
      try { process.kill(-child.pid, 'SIGKILL') }
      catch { /* Nothing is left. */ }
      resolve(code === 0)
    })
  })
}

async function run() {
  const mutants = JSON.parse(readFileSync(MUTANTS, 'utf8'))
  const times = Object.assign({}, ...projects.map(project => JSON.parse(readFileSync(TIMES(project), 'utf8'))))
  const reached = reachedBy(times)
  const counts = new Map()
  for (const [id, files] of reached) for (const test of files.keys()) counts.set(`${mutants[id].file} ${test}`, (counts.get(`${mutants[id].file} ${test}`) ?? 0) + 1)
  const reachOf = (file, test) => counts.get(`${file} ${test}`) ?? 0
  const done = new Set(results().filter(({ outcome }) => outcome === 'noticed' || !args.again).map(({ id }) => id))
  const wanted = args.files.split(',')
  const chosen = args.only ? args.only.split(',').map(Number) : sample(mutants.map((_, id) => id).filter(id => wanted.some(name => mutants[id].file.startsWith(name)) && (!args.mutators || args.mutators.split(',').includes(mutants[id].mutator))), mutants)
  const left = chosen.filter(id => !done.has(id))
  await Promise.all(Array.from({ length: Number(args.lanes) }, async () => {
    for (let id; Date.now() < deadline && (id = left.shift()) !== undefined;) {
      const tests = reached.get(id)
      const result = tests ? await judge(id, tests, times, { inServer: mutants[id].file.startsWith('nuxt/runtime/'), reach: test => reachOf(mutants[id].file, test) }) : { outcome: 'not reached' }
      appendFileSync(RESULTS, `${JSON.stringify({ id, ...mutants[id], ...result })}\n`)
      if (result.outcome !== 'noticed') console.log(`${result.outcome}: ${describe(mutants[id])}`)
    }
  }))
  if (left.length > 0) console.log(`the time is over: ${left.length} of ${chosen.length} mutants are left`)
}

/** Runs the quickest of the tests that reach a mutant, then the others, those files first that reach most of its source file. */
async function judge(id, tests, times, { inServer, reach }) {
  // What runs in a server is in its build, whichever mutant is active.
  const env = { NVENT_MUTANT: String(id), ...inServer ? { NVENT_TEST_BUILDS: state('builds') } : {} }
  const sum = (file, names) => names.reduce((total, name) => total + (times[file].tests[name] ?? 0), 0)
  const named = [...tests].flatMap(([file, names]) => [...names].filter(name => name in times[file].tests).map(name => ({ file, name, time: times[file].tests[name] })))
  const quick = named.filter(({ file }) => times[file].project === 'js').sort((a, b) => a.time - b.time).slice(0, 3 * QUICK_TESTS)
  const quickFiles = [...new Set(quick.map(({ file }) => file))].slice(0, QUICK_FILES)
  const first = quick.filter(({ file }) => quickFiles.includes(file)).slice(0, QUICK_TESTS)
  const rounds = first.length > 0 ? [['js', quickFiles, first.map(({ name }) => name), 0]] : []

  let left = MAX_TIME
  const skipped = []
  for (const project of ['js', 'nuxt']) {
    const affordable = [...tests.keys()].filter(file => times[file].project === project).sort((a, b) => reach(b) - reach(a)).filter((file) => {
      const names = [...tests.get(file)]
      const cost = names.includes('') ? sum(file, Object.keys(times[file].tests)) : sum(file, names)
      left -= cost
      if (left > 0) return true
      left += cost
      skipped.push(file)
      return false
    })
    // What a file reaches outside of its tests concerns all of them.
    const [whole, part] = [affordable.filter(file => tests.get(file).has('')), affordable.filter(file => !tests.get(file).has(''))]
    const names = [...new Set(part.flatMap(file => [...tests.get(file)]))]
    if (part.length > 0 && (names.length > first.length || part.length > quickFiles.length)) rounds.push([project, part, names, SLACK])
    if (whole.length > 0) rounds.push([project, whole, undefined, SLACK])
  }
  for (const [project, files, names, more] of rounds) {
    const pattern = names && `^(${names.map(name => name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})$`
    const cost = files.reduce((total, file) => total + sum(file, names ?? Object.keys(times[file].tests)), 0)
    const passed = await vitest(project, files, env, SLACK + more + 3 * cost, ['--bail=1', ...pattern ? ['-t', pattern] : []])
    if (passed !== true) return { outcome: 'noticed', by: passed === 'timeout' ? 'timeout' : files.join(' ') }
  }
  return { outcome: 'survived', files: tests.size, ...skipped.length > 0 ? { skipped } : {} }
}

/** Returns, for each mutant that a test reaches, the files and the names of these tests; `''` is what a file does outside of its tests. */
function reachedBy(times) {
  const reached = new Map()
  for (const line of readFileSync(COVERAGE, 'utf8').split('\n')) {
    if (line === '') continue
    const [file, test, ids] = JSON.parse(line)
    if (!(file in times)) continue
    for (const id of ids) {
      if (!reached.has(id)) reached.set(id, new Map())
      const files = reached.get(id)
      if (!files.has(file)) files.set(file, new Set())
      files.get(file).add(test)
    }
  }
  return reached
}

/** Returns as many of each file as asked for, spread evenly over it; always the same. */
function sample(ids, mutants) {
  if (args.sample === undefined) return ids
  const byFile = Map.groupBy ? Map.groupBy(ids, id => mutants[id].file) : ids.reduce((map, id) => map.set(mutants[id].file, [...map.get(mutants[id].file) ?? [], id]), new Map())
  return [...byFile.values()].flatMap((all) => {
    const count = Math.min(Number(args.sample), all.length)
    return Array.from({ length: count }, (_, i) => all[Math.floor((i + 0.5) * all.length / count)])
  })
}

/** Prints a table by file, and what was not noticed. */
function report() {
  const all = results()
  const files = [...new Set(all.map(({ file }) => file))].sort()
  const count = (file, outcome) => all.filter(one => one.file === file && one.outcome === outcome).length
  console.log('\n| file | noticed | survived | not reached |\n|---|---|---|---|')
  for (const file of files) console.log(`| ${file} | ${count(file, 'noticed')} | ${count(file, 'survived')} | ${count(file, 'not reached')} |`)
  console.log('')
  for (const one of all) if (one.outcome !== 'noticed') console.log(`${one.outcome}: ${describe(one)}${one.skipped ? ` (not run: ${one.skipped.join(' ')})` : ''}`)
}
