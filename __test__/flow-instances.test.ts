/** Several processes with flow wiring on one Redis store, each with a queue of its own. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { createEventBus, createWiringRegistry, defineFlow, MemoryQueueAdapter, MemoryStreamAdapter, RedisStoreAdapter, startFlow } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RedisServer } from './support/redis'
import { until } from './support/until'

const ROUNDS = 5
const RUNS = 16
/** As docs/guarantees.md promises. */
const TAKEOVER_TIMEOUT = 15_000
const STEPS = ['first', 'left', 'right', 'join']
const script = fileURLToPath(new URL('fixtures/shares-runs.mjs', import.meta.url))

let redis: RedisServer
let dir: string
let store: RedisStoreAdapter
beforeAll(async () => {
  redis = await RedisServer.start()
  dir = await mkdtemp(path.join(tmpdir(), 'nvent-instances-'))
  store = new RedisStoreAdapter({ connection: redis.connection, bus: null })
})
afterAll(async () => {
  await store.close()
  await redis.stop()
  await rm(dir, { recursive: true, force: true })
})

class Instance {
  output = ''
  readonly closed: Promise<unknown>

  constructor(readonly child: ChildProcess) {
    child.stdout!.setEncoding('utf8').on('data', text => this.output += text)
    this.closed = once(child, 'close')
  }

  async has(line: string): Promise<void> {
    await until(`a process says ${line}`, () => this.output.includes(`${line}\n`), 60_000)
  }

  open(): void {
    this.child.stdin!.write('open\n')
  }

  async stop(): Promise<void> {
    this.child.stdin!.end()
    await this.closed
    expect(this.output).toContain('stopped')
  }
}

function start(name: string, log: string, gate: string, prefix: string, runs: number): Instance {
  const args = [script, String(redis.port), path.join(dir, name), log, gate, prefix, String(runs)]
  return new Instance(spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] }))
}

async function newLog(name: string): Promise<string> {
  const log = path.join(dir, name)
  await writeFile(log, '')
  return log
}

/** Returns the attempts of steps, as `<run> <step>`. */
const attempts = async (log: string): Promise<string[]> =>
  (await readFile(log, 'utf8')).split('\n').filter(Boolean).map(line => line.split(' ').slice(0, 2).join(' '))

const all = (prefix: string): string[] => Array.from({ length: RUNS }, (_, n) => STEPS.map(step => `${prefix}-${n} ${step}`)).flat().toSorted()

const typesOf = async (run: string): Promise<string[]> =>
  (await store.stream.read(`nq:flow:${run}`)).map(event => event.type === 'step.completed' ? `${event.stepName} completed` : event.type)

it('each step runs in one process, whenever the second is started', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const [prefix, gate] = [`round${round}`, STEPS[round % 2]!]
    const log = await newLog(prefix)
    const first = start('a', log, gate, prefix, RUNS)
    await first.has('ready')
    // Some are at work, others wait in the first one's queue.
    await until('steps are at the gate', async () => (await attempts(log)).some(line => line.endsWith(gate)))
    const second = start('b', log, gate, 'none', 0)
    await second.has('ready')
    second.open()
    first.open()
    await first.has(`ended ${RUNS}`)
    await Promise.all([first.stop(), second.stop()])
    expect((await attempts(log)).toSorted()).toEqual(all(prefix))
  }
}, 120_000)

it('a run that two processes start at the same time is started by one of them', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const [prefix, log] = [`both${round}`, await newLog(`both${round}`)]
    const instances = ['g', 'h'].map(name => start(name, log, 'none', prefix, RUNS))
    await Promise.all(instances.map(instance => instance.has(`ended ${RUNS}`)))
    await Promise.all(instances.map(instance => instance.stop()))
    expect((await attempts(log)).toSorted()).toEqual(all(prefix))
  }
}, 120_000)

it('runs of a process that is killed are ended by another, and not again when it is back', async () => {
  const log = await newLog('killed')
  const first = start('c', log, 'left', 'killed', RUNS)
  await first.has('ready')
  await until('steps are at the gate', async () => (await attempts(log)).filter(line => line.endsWith('left')).length === 4)
  const second = start('d', log, 'none', 'none', 0)
  await second.has('ready')
  const runs = Array.from({ length: RUNS }, (_, n) => `killed-${n}`)
  first.child.kill('SIGKILL')
  await first.closed
  const ended = new Set((await Promise.all(runs.map(async run => (await typesOf(run)).map(type => `${run} ${type}`)))).flat())
  const interrupted = (await attempts(log)).filter(line => !ended.has(`${line} completed`))
  expect(interrupted.length).toBeGreaterThan(0)
  const again = async (): Promise<string[]> => (await attempts(log)).filter((line, i, all) => all.indexOf(line) !== i)
  await until('the other takes over', async () => (await again()).some(line => interrupted.includes(line)), TAKEOVER_TIMEOUT)
  await until('every run has ended', async () => (await Promise.all(runs.map(typesOf))).every(types => types.includes('flow.completed')), 60_000)
  // A run of its own goes through the same queues, after whatever waits in them.
  const back = start('c', log, 'none', 'own', 1)
  await back.has('ended 1')
  await Promise.all([back.stop(), second.stop()])
  // Only what was at work when the process was killed ran twice.
  expect((await again()).filter(line => !interrupted.includes(line))).toEqual([])
  expect([...new Set(await attempts(log))].filter(line => line.startsWith('killed')).toSorted()).toEqual(all('killed'))
  for (const run of runs) {
    const types = await typesOf(run)
    expect(types.filter(type => type.endsWith(' completed')).toSorted()).toEqual(STEPS.map(step => `${step} completed`).toSorted())
    expect(types.filter(type => type === 'flow.completed')).toHaveLength(1)
  }
}, 120_000)

it('a run whose start was acknowledged ends, also where the process is killed at that moment', async () => {
  const log = await newLog('acknowledged')
  const successor = start('e', log, 'none', 'none', 0)
  await successor.has('ready')
  const runs: string[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const killed = start(`f${round}`, log, 'first', `acknowledged${round}`, RUNS)
    await once(killed.child.stdout!, 'data')
    killed.child.kill('SIGKILL')
    await killed.closed
    runs.push(...killed.output.split('\n').flatMap(line => /^started (.*)$/.exec(line)?.[1] ?? []))
  }
  expect(runs.length).toBeGreaterThanOrEqual(ROUNDS)
  await until('every run has ended', async () => (await Promise.all(runs.map(typesOf))).every(types => types.includes('flow.completed')), 60_000)
  await successor.stop()
}, 120_000)

it.each([
  ['its only step had ended', ['step.started', 'step.completed'], 'completed'],
  ['it had been cancelled', ['flow.cancel'], 'canceled'],
])('a start that is repeated continues a run whose processes were killed before it was in the index: %s', async (_what, types, status) => {
  const flow = defineFlow('repeated', { only: { run: () => {} } })
  const bus = createEventBus()
  const [queue, stream] = [new MemoryQueueAdapter(), new MemoryStreamAdapter()]
  const own = new RedisStoreAdapter({ connection: redis.connection, bus })
  const registry = createWiringRegistry({ store: own, queue, stream, bus, flow: { flows: [flow] } })
  await registry.start()
  try {
    const runId = `repeated-${status}`
    await store.append(`nq:flow:${runId}`, { type: 'flow.start', runId, flowName: flow.id, data: { input: {} } })
    for (const type of types) {
      const step = type.startsWith('step.') ? { stepName: 'only', attempt: 1 } : {}
      await store.append(`nq:flow:${runId}`, { type, runId, flowName: flow.id, ...step, data: {} })
    }
    const run = await startFlow(flow, {}, { runId })
    expect(run.created).toBe(false)
    expect((await run.result()).status).toBe(status)
    const { metadata } = (await store.index.get('nq:flows:repeated', runId))!
    expect(metadata.status).toBe(status)
  }
  finally {
    await registry.stop()
    await Promise.all([queue.close(), stream.shutdown(), own.close()])
  }
})
