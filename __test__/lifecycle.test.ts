import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { run, runFile } from './support/process'

let dir: string
beforeEach(async () => { dir = await mkdtemp(path.join(tmpdir(), 'nvent-lifecycle-')) })
afterEach(() => rm(dir, { recursive: true }))

it('lets a script that forgets to close exit by itself', async () => {
  expect(await run('forgets-to-close.mjs')).toEqual({ code: 0, signal: null, stdout: 'done\n', stderr: '' })
  expect(await run('forgets-to-close.mjs', dir)).toEqual({ code: 0, signal: null, stdout: 'done\n', stderr: '' })
})

it('lets a process end whose loops wait for more', async () => {
  expect(await run('waits-in-loops.mjs')).toEqual({ code: 0, signal: null, stdout: 'waiting\n', stderr: '' })
})

it('keeps the data where a relative directory was when the adapter was made', async () => {
  const [before, after] = [path.join(dir, 'before'), path.join(dir, 'after')]
  await Promise.all([mkdir(before), mkdir(after)])
  const exit = await runFile('fixtures/changes-directory.mjs', [after], { cwd: before })
  expect(exit).toEqual({ code: 0, signal: null, stdout: '[]\n', stderr: '' })
  expect((await readdir(path.join(before, 'data'))).sort()).toEqual(['queue', 'store'])
})

it('completes an operation that is awaited at the top level', async () => {
  expect(await run('awaits-one.mjs', dir)).toEqual({ code: 0, signal: null, stdout: 'stored\n', stderr: '' })
})

it('shares its singletons between import and require', async () => {
  expect(await run('one-of-both.mjs')).toEqual({ code: 0, signal: null, stdout: '[true,true,[]]\n', stderr: '' })
})

it('survives fifty worker threads that are terminated in mid-flight, and keeps nothing of them', async () => {
  const exit = await run('terminated-workers.mjs', dir)
  expect({ ...exit, stdout: '' }).toEqual({ code: 0, signal: null, stdout: '', stderr: '' })
  const { leaked, growth } = JSON.parse(exit.stdout)
  expect(leaked).toBeLessThanOrEqual(1)
  expect(growth, 'MB after the tenth thread').toBeLessThan(60)
}, 120_000)

it('keeps nothing of the workers of a name that is registered 100,000 times, as hot reload does', async () => {
  const exit = await run('registers-workers-again.mjs')
  expect({ ...exit, stdout: '' }).toEqual({ code: 0, signal: null, stdout: '', stderr: '' })
  expect(Number(exit.stdout), 'bytes, of which 300 for each would be 30 million').toBeLessThan(20_000_000)
}, 120_000)

it('goes on after the thread that loaded it first has ended', async () => {
  expect(await run('first-thread-ends.mjs', dir)).toEqual({ code: 0, signal: null, stdout: '3\n', stderr: '' })
})

it('lets a process exit in mid-flight, with its own code', async () => {
  expect(await run('exits-in-mid-flight.mjs', dir)).toEqual({ code: 7, signal: null, stdout: '', stderr: '' })
})

it('ends no process because handlers fail, and warns once per adapter', async () => {
  const exit = await run('unhandled-handler.mjs')
  expect(exit).toMatchObject({ code: 0, signal: null, stdout: '4 4\n' })
  expect(exit.stderr.match(/NVENT_HANDLER/g)).toHaveLength(3)
}, 30_000)
