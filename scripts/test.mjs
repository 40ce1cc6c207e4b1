/**
 * Runs everything that must hold, section by section. The last line counts the tests, and a failing section as one more.
 * Tests that failed or were skipped are listed before it, and a test that is marked `only` fails its section.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { otherRedisServers } from './redis-servers.mjs'
import { root } from './shared.mjs'
import { ensureTools, isOnPath } from './tools.mjs'

ensureTools()

/** How much of the message of a test that failed is repeated at the end, in characters. */
const FAILURE_LENGTH = 600
/** How many tests that failed are repeated at the end. */
const MAX_FAILURES = 20

const scratch = mkdtempSync(join(tmpdir(), 'nvent-test-'))
let reports = 0
const bin = (path, ...args) => [process.execPath, join('node_modules', path), ...args]
const clippy = (...args) => ['cargo', 'clippy', ...args, '--all-targets', '--', '-D', 'warnings']

/** Reads `test result: ok. 12 passed; 0 failed; …`, one line for each test binary, and `test a_name ... ignored` or `FAILED`. */
function fromCargo(output) {
  const names = end => [...output.matchAll(new RegExp(`^test (.*) \\.\\.\\. ${end}`, 'gm'))].map(([, name]) => name)
  const counts = { passed: 0, failed: 0, skipped: names('ignored'), failures: names('FAILED') }
  for (const [, passed, failed] of output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed/gm)) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
  }
  return counts
}

/** Returns a section of tests in JavaScript, and how to count them. */
function vitest(project, ...flags) {
  const report = join(scratch, `${reports++}.json`)
  return [
    bin(
      'vitest/vitest.mjs', 'run', '--project', project, '--allowOnly=false', ...flags,
      '--reporter=default', '--reporter=json', `--outputFile.json=${report}`,
    ),
    () => {
      const { numPassedTests: passed, numFailedTests: failed, testResults } = JSON.parse(readFileSync(report, 'utf8'))
      const tests = testResults.flatMap(file => file.assertionResults.map(test => ({ ...test, file: file.name })))
      return {
        passed,
        failed,
        skipped: tests.filter(test => !['passed', 'failed'].includes(test.status)).map(test => test.fullName),
        failures: [
          ...tests.filter(test => test.status === 'failed').map(test =>
            `${relative(root, test.file)} > ${test.fullName}: ${test.failureMessages.join('\n').slice(0, FAILURE_LENGTH)}`),
          // A file that could not be loaded, or whose hooks failed, has a message of its own.
          ...testResults.filter(file => file.message !== '').map(file => `${relative(root, file.name)}: ${file.message.slice(0, FAILURE_LENGTH)}`),
        ],
      }
    },
  ]
}

/** Sections that repeat the contracts of the Redis backends on one more server. */
function redisSections({ name, path }) {
  const env = { NVENT_TEST_REDIS_SERVER: path }
  return [
    [`Rust tests on ${name}`, ['cargo', 'test', '--no-default-features', '--test', 'redis_backends', '--', ...REDIS_CONTRACTS], fromCargo, env],
    [`JavaScript tests on ${name}`, ...vitest('js', '__test__/redis-store.test.ts', '__test__/redis-stream.test.ts'), env],
  ]
}

/** The tests of the Redis backends that depend on what a server can do, rather than on how connections fail. */
const REDIS_CONTRACTS = ['_contract::', 'groups::', 'feed::', 'consumer::', 'names::', 'interop::', 'paging::']

const servers = otherRedisServers()
const unavailable = servers.filter(({ path }) => path === undefined).map(({ name, reason }) => `the contracts on ${name}: ${reason}`)

const hasCargoDeny = isOnPath('cargo-deny')

const sections = [
  ['rustfmt', ['cargo', 'fmt', '--check']],
  // The workflow checks advisories as well, which need the RustSec database.
  ...hasCargoDeny ? [['cargo deny', ['cargo', 'deny', '--locked', '--log-level', 'error', 'check', 'bans', 'licenses', 'sources']]] : [],
  ['clippy', clippy()],
  ['clippy, without Node', clippy('--no-default-features')],
  ['rustdoc', ['cargo', 'doc', '--no-deps', '--document-private-items', '--quiet'], undefined, { RUSTDOCFLAGS: '-D warnings' }],
  ['Rust tests', ['cargo', 'test', '--no-default-features', '--no-fail-fast'], fromCargo],
  ['build', [process.execPath, 'scripts/build.mjs']],
  ['types are up to date', [process.execPath, 'scripts/types.mjs', '--check']],
  ['options are up to date', [process.execPath, 'scripts/options.mjs', '--check']],
  ['tsc', bin('typescript/bin/tsc', '--noEmit')],
  ['eslint', bin('eslint/bin/eslint.js', '.')],
  ['JavaScript tests', ...vitest('js')],
  ...servers.filter(({ path }) => path !== undefined).flatMap(redisSections),
  // One build at a time: each takes all the cores there are.
  ['Nuxt tests', ...vitest('nuxt', '--no-file-parallelism')],
]

const total = { passed: 0, failed: 0 }
// The workflows run where all of them can be had.
const failing = process.env.CI && process.arch === 'x64' ? [...unavailable] : []
const skipped = [...unavailable]
const failures = []
for (const [name, command, count, env] of sections) {
  console.log(`\n── ${name}`)
  const { ok, output } = await execute(command, env)
  const counts = tests(count, output)
  if (!ok) failing.push(name)
  failures.push(...(counts.failures ?? []).map(test => `${name}: ${test}`))
  skipped.push(...(counts.skipped ?? []).map(test => `${name}: ${test}`))
  total.passed += counts.passed
  total.failed += counts.failed > 0 || ok ? counts.failed : 1
}
rmSync(scratch, { recursive: true, force: true })

if (skipped.length > 0) console.log(['\nskipped:', ...skipped].join('\n  '))
if (!hasCargoDeny) {
  console.log('\nnot run: cargo deny, as cargo-deny is not on the PATH. `cargo install --locked cargo-deny` installs it; `.ci/run` and the workflow run it.')
}
if (failures.length > 0) console.log(['\nfailed:', ...failures.slice(0, MAX_FAILURES)].join('\n  '))
if (failing.length > 0) console.log(`\nfailing: ${failing.join(', ')}`)
console.log(`\n${total.passed} passed, ${total.failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`)
process.exitCode = failing.length > 0 || total.failed > 0 || total.passed === 0 ? 1 : 0

/** Returns what a section counted: one failure where it ended without results. */
function tests(count, output) {
  try {
    return count?.(output) ?? { passed: 0, failed: 0 }
  }
  catch (error) {
    console.error(`no results: ${error.message}`)
    return { passed: 0, failed: 1 }
  }
}

/** Runs a command, shows what it prints, and resolves with its standard output. */
function execute([command, ...args], env = {}) {
  const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output += text
    process.stdout.write(text)
  })
  return new Promise((resolve) => {
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`)
      resolve({ ok: false, output })
    })
    child.on('close', code => resolve({ ok: code === 0, output }))
  })
}
