import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import type { StoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { run } from './support/process'
import { RedisServer } from './support/redis'

const COUNT = 60
const script = fileURLToPath(new URL('fixtures/fires-triggers.mjs', import.meta.url))

/** What the processes have printed. */
let output = ''

function start(backend: string, place: string, base: number): ChildProcess {
  const child = spawn(process.execPath, [script, backend, place, String(base), String(COUNT)], { stdio: ['ignore', 'pipe', 'inherit'] })
  child.stdout!.setEncoding('utf8').on('data', text => output += text)
  return child
}

/** Kills a process at some moment of its work: nothing depends on which. */
async function kill(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit')
  await once(child.stdout!, 'data')
  setTimeout(() => child.kill('SIGKILL'), randomInt(0, 250))
  await exited
}

const numbers = (word: string): number[] => [...output.matchAll(new RegExp(`^${word} (\\d+)$`, 'gm'))].map(([, n]) => Number(n)).sort((a, b) => a - b)

/** Returns the `flow.start` of each run of a flow. */
async function starts(store: StoreAdapter, flow: string) {
  const runs = await store.index.read(`nq:flows:${flow}`, { limit: 10_000 })
  // A due time may have come while the last process stopped.
  if (flow !== 'tick') expect(runs.filter(({ metadata }) => metadata.status === 'running')).toEqual([])
  const logs = await Promise.all(runs.map(({ id }) => store.read(`nq:flow:${id}`, { types: ['flow.start'] })))
  expect(logs.every(log => log.length === 1)).toBe(true)
  return logs.map(([start]) => start!)
}

async function check(store: StoreAdapter): Promise<void> {
  const subjects = [0, 1, 2, 3, 4].map(n => `in:${n}`)
  const events = (await Promise.all(subjects.map(async subject => (await store.read(subject)).map(({ id, data }) => ({ cause: `${subject}@${id}`, n: data.n as number }))))).flat()
  const stored = events.map(({ n }) => n).sort((a, b) => a - b)
  expect(stored, 'every acknowledged event is there').toEqual(expect.arrayContaining(numbers('stored')))
  expect(numbers('stored').length).toBeGreaterThan(0)

  // One run of each flow for each event.
  for (const flow of ['plain', 'other']) {
    const causes = (await starts(store, flow)).map(start => start['trigger'].cause)
    expect(causes.sort()).toEqual(events.map(({ cause }) => cause).sort())
  }
  // Each event in one window.
  const windows = (await starts(store, 'batch')).map(({ data }) => data.input as number[])
  expect(windows.flat().sort((a, b) => a - b)).toEqual(stored)
  // One run for each key; a call that was not acknowledged may have been stored.
  const byHand = (await starts(store, 'hand')).map(({ data }) => data.input.n as number).sort((a, b) => a - b)
  expect(byHand).toEqual([...new Set(byHand)])
  expect(byHand).toEqual(expect.arrayContaining(numbers('fired')))
  // One run for each due time.
  const ticks = (await starts(store, 'tick')).map(({ data }) => data.input.dueAt as number)
  expect(ticks.length).toBe(new Set(ticks).size)

  for (const [id, runs] of [['each', events.length], ['batch', windows.length], ['hand', byHand.length], ['tick', ticks.length]] as const) {
    const history = await store.read(`nq:trigger:${id}`)
    expect(history.map(({ type, data }) => `${type} ${data.fired}`), id).toEqual(Array.from({ length: runs }, (_, n) => `trigger.fired ${n + 1}`))
    expect(new Set(history.map(({ data }) => data.cause)).size, id).toBe(runs)
  }
}

it('on file: one run for each cause, although the process is killed ten times', async () => {
  output = ''
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-trigger-kill-'))
  try {
    for (let round = 0; round < 10; round++) await kill(start('file', dataDir, round * COUNT))
    const end = await run('fires-triggers.mjs', 'file', dataDir, '0', '0')
    expect(end.stdout, end.stderr).toMatch(/settled\n$/)
    await using store = new FileStoreAdapter({ bus: null, dataDir: `${dataDir}/store` })
    await check(store)
  }
  finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 120_000)

it('on Redis: one run for each cause, although two processes are killed six times each', async () => {
  output = ''
  const server = await RedisServer.start()
  try {
    for (let round = 0; round < 6; round++) {
      await Promise.all([0, 1].map(one => kill(start('redis', String(server.port), (round * 2 + one) * COUNT))))
    }
    const ends = await Promise.all([0, 1].map(() => run('fires-triggers.mjs', 'redis', String(server.port), '0', '0')))
    for (const end of ends) expect(end.stdout, end.stderr).toMatch(/settled\n$/)
    await using store = new RedisStoreAdapter({ bus: null, connection: { port: server.port } })
    await check(store)
  }
  finally {
    await server.stop()
  }
}, 180_000)
