/** Runs everything that must hold, section by section. The last line counts the tests, and a failing section as one more. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './shared.mjs'

const scratch = mkdtempSync(join(tmpdir(), 'nvent-test-'))
const bin = (path, ...args) => [process.execPath, join('node_modules', path), ...args]
const clippy = (...args) => ['cargo', 'clippy', ...args, '--all-targets', '--', '-D', 'warnings']

/** Lines such as `test result: ok. 12 passed; 0 failed; …`, one for each test binary. */
function fromCargo(output) {
  const counts = { passed: 0, failed: 0 }
  for (const [, passed, failed] of output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed/gm)) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
  }
  return counts
}

/** A section of tests in JavaScript, and how to count them. */
function vitest(project, ...flags) {
  const report = join(scratch, `${project}.json`)
  return [
    bin('vitest/vitest.mjs', 'run', '--project', project, ...flags, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`),
    () => {
      const { numPassedTests: passed, numFailedTests: failed } = JSON.parse(readFileSync(report, 'utf8'))
      return { passed, failed }
    },
  ]
}

const sections = [
  ['rustfmt', ['cargo', 'fmt', '--check']],
  ['clippy', clippy()],
  ['clippy, without Node', clippy('--no-default-features')],
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
for (const [name, command, count] of sections) {
  console.log(`\n── ${name}`)
  const { ok, output } = await execute(command)
  const counts = tests(count, output)
  if (!ok) failing.push(name)
  total.passed += counts.passed
  total.failed += counts.failed > 0 || ok ? counts.failed : 1
}
rmSync(scratch, { recursive: true, force: true })

if (failing.length > 0) console.log(`\nfailing: ${failing.join(', ')}`)
console.log(`\n${total.passed} passed, ${total.failed} failed`)
process.exitCode = failing.length > 0 || total.failed > 0 || total.passed === 0 ? 1 : 0

/** What a section counted. One that ended before it could has nothing to tell. */
function tests(count, output) {
  try {
    return count?.(output) ?? { passed: 0, failed: 0 }
  }
  catch (error) {
    console.error(`no results: ${error.message}`)
    return { passed: 0, failed: 1 }
  }
}

/** Runs a command, shows what it prints, and remembers its standard output. */
function execute([command, ...args]) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
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
