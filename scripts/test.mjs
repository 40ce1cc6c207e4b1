/**
 * Runs everything that must hold, section by section. The last line counts the tests, and a failing section as one more.
 * Skipped tests are listed before it, and a test that is marked `only` fails its section.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './shared.mjs'
import { ensureTools, isOnPath } from './tools.mjs'

ensureTools()

const scratch = mkdtempSync(join(tmpdir(), 'nvent-test-'))
const bin = (path, ...args) => [process.execPath, join('node_modules', path), ...args]
const clippy = (...args) => ['cargo', 'clippy', ...args, '--all-targets', '--', '-D', 'warnings']

/** Lines such as `test result: ok. 12 passed; 0 failed; …`, one for each test binary, and `test a_name ... ignored`. */
function fromCargo(output) {
  const counts = { passed: 0, failed: 0, skipped: [...output.matchAll(/^test (.*) \.\.\. ignored/gm)].map(([, name]) => name) }
  for (const [, passed, failed] of output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed/gm)) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
  }
  return counts
}

/** Returns a section of tests in JavaScript, and how to count them. */
function vitest(project, ...flags) {
  const report = join(scratch, `${project}.json`)
  return [
    bin(
      'vitest/vitest.mjs', 'run', '--project', project, '--allowOnly=false', ...flags,
      '--reporter=default', '--reporter=json', `--outputFile.json=${report}`,
    ),
    () => {
      const { numPassedTests: passed, numFailedTests: failed, testResults } = JSON.parse(readFileSync(report, 'utf8'))
      const tests = testResults.flatMap(file => file.assertionResults)
      return { passed, failed, skipped: tests.filter(test => !['passed', 'failed'].includes(test.status)).map(test => test.fullName) }
    },
  ]
}

const sections = [
  ['rustfmt', ['cargo', 'fmt', '--check']],
  // What needs no network; advisories are checked by the workflow. `cargo install cargo-deny` brings it.
  ...isOnPath('cargo-deny') ? [['cargo deny', ['cargo', 'deny', '--offline', 'check', 'bans', 'licenses', 'sources']]] : [],
  ['clippy', clippy()],
  ['clippy, without Node', clippy('--no-default-features')],
  ['rustdoc', ['cargo', 'doc', '--no-deps', '--document-private-items', '--quiet'], undefined, { RUSTDOCFLAGS: '-D warnings' }],
  ['Rust tests', ['cargo', 'test', '--no-default-features', '--no-fail-fast'], fromCargo],
  ['build', [process.execPath, 'scripts/build.mjs']],
  ['types are up to date', [process.execPath, 'scripts/types.mjs', '--check']],
  ['tsc', bin('typescript/bin/tsc', '--noEmit')],
  ['eslint', bin('eslint/bin/eslint.js', '.')],
  ['JavaScript tests', ...vitest('js')],
  // One build at a time: each takes all the cores there are.
  ['Nuxt tests', ...vitest('nuxt', '--no-file-parallelism')],
]

const total = { passed: 0, failed: 0 }
const failing = []
const skipped = []
for (const [name, command, count, env] of sections) {
  console.log(`\n── ${name}`)
  const { ok, output } = await execute(command, env)
  const counts = tests(count, output)
  if (!ok) failing.push(name)
  skipped.push(...(counts.skipped ?? []).map(test => `${name}: ${test}`))
  total.passed += counts.passed
  total.failed += counts.failed > 0 || ok ? counts.failed : 1
}
rmSync(scratch, { recursive: true, force: true })

if (skipped.length > 0) console.log(['\nskipped:', ...skipped].join('\n  '))
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
