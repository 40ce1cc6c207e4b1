import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { runFile } from './support/process'

const root = new URL('../', import.meta.url)

test('npm run bench -- --quick measures every kind of row in memory, and writes nothing', async () => {
  const readme = readFileSync(new URL('README.md', root), 'utf8')
  const { code, stdout, stderr } = await runFile('../bench/run.mjs', ['--quick'])
  expect(code, stderr).toBe(0)
  for (const row of [
    /^append, 256 in flight: .+ µs$/m,
    /^ {4}JS, live references: .+ × \(.+–.+\) [✓✗] ≥ 1\.0$/m,
    /^index\.read, filter that scans all and matches none among 100,000: /m,
    /^publish to 1,000 subscribers by glob, one of which gets it: /m,
    /^event loop delay p99 while 20,000 events\/s .+ ms/m,
    /^a flow of 10 steps, 100 at once/m,
    /^V8 heap that 50,000 events/m,
  ]) expect(stdout).toMatch(row)
  expect(readFileSync(new URL('README.md', root), 'utf8')).toBe(readme)
})

test('npm run bench names the areas when it is asked for one that does not exist', async () => {
  const { code, stderr } = await runFile('../bench/run.mjs', ['memroy'])
  expect(code).toBe(2)
  expect(stderr).toContain('not known: memroy')
})

test('docs/benchmarks.md and the README have the tables of bench/results.json', async () => {
  const { markdown, summary } = await import(new URL('bench/report.mjs', root).href)
  const read = (path: string) => readFileSync(new URL(path, root), 'utf8')
  const results = JSON.parse(read('bench/results.json'))
  expect(read('docs/benchmarks.md')).toBe(markdown(results))
  expect(read('README.md')).toContain(`<!-- bench -->\n${summary(results)}\n<!-- /bench -->`)
})

test('the README has a place for the tables', () => {
  expect(readFileSync(new URL('README.md', root), 'utf8')).toMatch(/<!-- bench -->.*<!-- \/bench -->/s)
  expect(existsSync(new URL('bench/package-lock.json', root))).toBe(true)
})
