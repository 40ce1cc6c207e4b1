/** Flows on a store that is the application's own, whose calls fail in ways of their own, and whose texts are JavaScript's. */
import { createEventBus, createFlowWiring, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, runState, startFlow } from 'nvent-native'
import type { EventBus, Flow, FlowWiring, NewEvent, StoreAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { intercepted } from './support/own'

const HALF = 'x\uD800y'

let bus: EventBus
let inner: MemoryStoreAdapter
let queue: MemoryQueueAdapter
let wiring: FlowWiring

beforeEach(() => {
  bus = createEventBus()
  inner = new MemoryStoreAdapter({ bus })
  queue = new MemoryQueueAdapter()
})
afterEach(async () => {
  await queue.close()
  await wiring.stop()
  await inner.close()
})

/** A store with the same surface, no adapter of this package. `before` is called before each call. */
function own(before: (method: string) => void = () => {}): StoreAdapter {
  const checked = (object: object): any => intercepted(object, before)
  return { stream: { ...checked(inner.stream), subscribe: inner.stream.subscribe }, index: { ...checked(inner.index) }, kv: inner.kv } as unknown as StoreAdapter
}

async function start(flow: Flow, store: StoreAdapter): Promise<void> {
  wiring = createFlowWiring({ bus, store, queue, flows: [flow] })
  await wiring.start()
}
const logged = async (): Promise<NewEvent[]> => inner.read('nq:flow:r1')

it('is asked only for what follows what is known, and is given no options that are null', async () => {
  const calls: unknown[][] = []
  const asked = intercepted(inner.stream, (method, ...args) => calls.push([method, ...args.slice(method === 'append' ? 2 : 1)]))
  const store = { stream: { append: asked.append, read: asked.read }, index: inner.index, kv: inner.kv }
  await start(defineFlow('f', { a: { run: () => {} } }), store as unknown as StoreAdapter)
  bus.publish({ type: 'flow.start', runId: 'r1', flowName: 'f', data: {} })
  await expect.poll(async () => (await logged()).length).toBe(1)
  const [{ id }] = await logged() as unknown as [{ id: string }]
  // As another process does.
  await inner.append('nq:flow:r1', { type: 'log', runId: 'r1', flowName: 'f', data: {} })
  bus.publish({ type: 'step.started', runId: 'r1', flowName: 'f', stepName: 'a', data: {} })
  await expect.poll(async () => (await logged()).length).toBe(3)
  expect(calls.filter(([method, opts]) => method === 'append' && opts === null)).toEqual([])
  expect(calls).toContainEqual(['read', { after: id }])
})

it('one with the older surface, whose calls are its own methods, carries runs on', async () => {
  const { index } = inner
  const store = {
    append: (subject: string, event: NewEvent) => inner.append(subject, event), read: (subject: string, opts?: object) => inner.read(subject, opts),
    indexAdd: index.add, indexUpdate: index.update, indexRead: index.read,
  }
  for (const [type, data] of [['flow.start', {}], ['step.started', {}], ['emit', { name: 'x' }], ['step.completed', {}]] as const) {
    await inner.append('nq:flow:r1', { type, runId: 'r1', flowName: 'f', data, ...type === 'flow.start' ? {} : { stepName: 'a' } })
  }
  await inner.index.add('nq:flows:f', 'r1', 1, { status: 'running' })
  wiring = createFlowWiring({ bus, store: store as unknown as StoreAdapter, queue, flows: [{ id: 'f', entry: { step: 'a', queue: 'q', emits: ['x'] }, steps: { b: { subscribes: ['x'], queue: 'q' } } }] })
  await wiring.start()
  await expect.poll(async () => (await queue.getJob('q', 'r1__b'))?.state).toBe('waiting')
  bus.publish({ type: 'step.completed', runId: 'r1', flowName: 'f', stepName: 'b', data: {} })
  await expect.poll(async () => (await inner.index.get('nq:flows:f', 'r1'))?.metadata.status, { timeout: 10_000 }).toBe('completed')
})

const coded = (code: string, fields: object = {}): Error => Object.assign(new Error(code), { code, ...fields })

it.each([
  ['has a text with half of a surrogate pair', () => new Error(HALF)],
  ['has the code of an outage and does not say whether it is retryable', () => coded('NVENT_UNAVAILABLE')],
  ['has a code that this package does not have', () => coded('NVENT_BUSY')],
  ['says in words that it is retryable', () => coded('NVENT_LOCKED', { retryable: 'yes' })],
  ['has no text', () => Object.create(null)],
])('what fails once with an error that %s is tried again', async (_, error) => {
  const seen = new Set<string>()
  let started = false
  const store = own((method) => {
    if (!started || seen.has(method)) return
    seen.add(method)
    throw error()
  })
  const flow = defineFlow('f', { a: { emits: ['x'], run: (_, { emit }) => emit('x') }, b: { subscribes: ['x'], run: () => {} } })
  await start(flow, store)
  // The run is started by events, so that every call is flow wiring's.
  started = true
  for (const [type, data] of [['flow.start', {}], ['step.started', {}], ['emit', { name: 'x' }], ['step.completed', {}]] as const) {
    bus.publish({ type, runId: 'r1', flowName: 'f', ...type === 'flow.start' ? {} : { stepName: 'a' }, data })
  }
  await expect.poll(async () => (await inner.index.get('nq:flows:f', 'r1'))?.metadata.status, { timeout: 10_000 }).toBe('completed')
  expect(wiring.stats()).toMatchObject({ lost: 0, errors: 0 })
  expect(seen).toEqual(new Set(['append', 'read', 'update', 'add']))
})

it.each([['of its own', () => own()], ['of this package', () => inner]])('half of a surrogate pair in what a step gets, emits and throws hinders no run, on a store %s', async (_, store) => {
  const flow = defineFlow<string>('f', {
    a: { emits: ['x'], attempts: 2, run: async (input, { attempt, emit, log }) => {
      await log('info', HALF)
      if (attempt === 1) throw new Error(HALF)
      await emit('x', input)
      return HALF
    } },
    b: { subscribes: ['x', 'step:a'], run: ({ x }) => {
      throw new Error(x)
    } },
  })
  await start(flow, store())
  const run = await startFlow(flow, HALF, { runId: 'r1' })
  expect(await run.result({ timeout: 10_000 })).toEqual({ status: 'failed', error: 'x\uFFFDy' })
  const events = await logged()
  expect(events.find(({ type }) => type === 'emit')!.data.payload).toBe(HALF)
  expect(events.find(({ type }) => type === 'step.completed')!.data.result).toBe(HALF)
  expect(await runState('f', 'r1', { store: inner })).toMatchObject({
    status: 'failed', error: 'x\uFFFDy', input: 'x\uFFFDy', emits: { x: { payload: 'x\uFFFDy' } },
    steps: { a: { state: 'completed' }, b: { state: 'failed', error: 'x\uFFFDy' } },
  })
})

it('a log and an index with rows that are no events and no entries do not hinder the others', async () => {
  const flow = defineFlow('f', { a: { run: () => {} }, b: { subscribes: ['step:a'], run: () => {} } })
  for (const run of ['r1', 'r2']) {
    await inner.append(`nq:flow:${run}`, { type: 'flow.start', runId: run, flowName: 'f', data: {} })
    await inner.append(`nq:flow:${run}`, { type: 'step.completed', runId: run, flowName: 'f', stepName: 'a', data: {} })
    await inner.index.add('nq:flows:f', run, 1, { status: 'running' })
  }
  const { stream, index, kv } = own()
  const store = {
    stream: { ...stream, read: async (...args: Parameters<typeof stream.read>) => [{}, { type: 'log' }, { id: 7, type: 'log' }, ...await stream.read(...args)] },
    index: { ...index, read: async (...args: Parameters<typeof index.read>) => [{ id: 7, metadata: {} }, { score: 'high', metadata: {} }, ...await index.read(...args)] },
    kv,
  } as unknown as StoreAdapter
  await start(flow, store)
  for (const run of ['r1', 'r2']) {
    await expect.poll(async () => (await inner.index.get('nq:flows:f', run))?.metadata.status, { timeout: 10_000 }).toBe('completed')
  }
})
