import {
  cancelFlow, createEventBus, createFlowWiring, createStreamCoordinator, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, startFlow,
} from 'nvent-native'
import type { EventBus, EventRecord, FlowDefinition, FlowWiring, NewEvent, QueueAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Inbox, rejects, until } from './support/until'

// What flow wiring does with input that it cannot use, a queue that refuses, and runs that are deleted.

const FLOW = { id: 'f', entry: { step: 'a', queue: 'q', emits: ['x'] }, steps: { b: { subscribes: ['x'], queue: 'q' } } }

let bus: EventBus
let store: MemoryStoreAdapter
let queue: MemoryQueueAdapter
let wiring: FlowWiring

beforeEach(() => {
  bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  queue = new MemoryQueueAdapter()
})
afterEach(async () => {
  await queue.close()
  await wiring?.stop()
  await store.close()
})

const start = async (more: { queue?: QueueAdapter, flows?: FlowDefinition[] } = {}): Promise<void> => {
  wiring = createFlowWiring({ bus, store, queue, flows: [FLOW], ...more })
  await wiring.start()
}
const publish = (type: string, runId: string, more = {}): void => bus.publish({ type, runId, flowName: 'f', ...more })
const log = async (runId: string): Promise<string[]> => (await store.read(`nq:flow:${runId}`)).map(event => event.type)
const status = async (runId: string): Promise<string | undefined> => (await store.index.get('nq:flows:f', runId))?.metadata.status

it.each([20_000, 400_000])('refuses an emit whose name has %i dots when it is published', async (dots) => {
  await start()
  await rejects(() => publish('emit', 'r1', { stepName: 'a', data: { name: `a${'.'.repeat(dots)}b` } }), 'NVENT_INVALID', /event\.data\.name/)
})

it.each([20_000, 400_000])('skips such an emit that is in the log, with an error, and goes on with the run', async (dots) => {
  await store.append('nq:flow:r1', { type: 'flow.start', runId: 'r1', flowName: 'f' })
  await store.append('nq:flow:r1', { type: 'emit', runId: 'r1', flowName: 'f', stepName: 'a', data: { name: `a${'.'.repeat(dots)}b` } })
  await store.index.add('nq:flows:f', 'r1', 1, { status: 'running' })
  await start()
  publish('emit', 'r1', { stepName: 'a', data: { name: 'x' } })
  await until('the next step is enqueued', () => queue.getJob('q', 'r1__b'))
  expect(wiring.stats().errors).toBeGreaterThan(0)
})

it('takes an emit of as many dots as are allowed', async () => {
  await start()
  publish('flow.start', 'r1')
  publish('emit', 'r1', { stepName: 'a', data: { name: `a${'.b'.repeat(500)}` } })
  publish('emit', 'r1', { stepName: 'a', data: { name: 'x' } })
  await until('the next step is enqueued', () => queue.getJob('q', 'r1__b'))
  expect(wiring.stats().errors).toBe(0)
})

it('counts a queue that refuses, warns, works on other runs meanwhile, and tries again', async () => {
  let refuses = true
  const refusing = { enqueue: async (name: string, job: any) => {
    if (refuses && job.opts.jobId === 'r1__b') throw new Error('full')
    return queue.enqueue(name, job)
  } }
  await start({ queue: refusing as unknown as QueueAdapter })
  for (const run of ['r1', 'r2']) {
    publish('flow.start', run)
    publish('emit', run, { stepName: 'a', data: { name: 'x' } })
  }
  await until('the other run goes on', () => queue.getJob('q', 'r2__b'))
  await until('the refusal is counted', () => wiring.stats().errors > 0)
  refuses = false
  await until('the step is enqueued', () => queue.getJob('q', 'r1__b'))
})

it('a run that was deleted is not revived by late events, and starts again under its id', async () => {
  await start()
  publish('flow.start', 'r1')
  publish('step.completed', 'r1', { stepName: 'a' })
  publish('emit', 'r1', { stepName: 'a', data: { name: 'x' } })
  await until('the next step is enqueued', () => queue.getJob('q', 'r1__b'))
  publish('step.completed', 'r1', { stepName: 'b' })
  await until('the run has ended', async () => await status('r1') === 'completed')
  // The step's job of the dead run stays in the queue, ended.
  queue.registerWorker('q', 'b', async () => null)
  queue.startProcessingQueue('q')
  await until('its job has ended', async () => (await queue.getJob('q', 'r1__b'))!.state === 'completed')
  await queue.pause('q')
  await store.stream.delete('nq:flow:r1')
  await store.index.delete('nq:flows:f', 'r1')

  publish('log', 'r1')
  publish('step.completed', 'r1', { stepName: 'a' })
  await until('the late events are counted', () => wiring.stats().lost === 2)
  expect(await log('r1')).toEqual([])
  expect(await status('r1')).toBe(undefined)

  publish('flow.start', 'r1')
  publish('emit', 'r1', { stepName: 'a', data: { name: 'x' } })
  await until('the next step is enqueued', async () => (await queue.getJob('q', 'r1__b'))?.state === 'paused')
  expect(await status('r1')).toBe('running')
  expect(await log('r1')).toEqual(['flow.start', 'emit'])
})

it.each([
  ['a misspelt field of a step', { steps: { b: { subscribe: ['x'] } } }, /steps\.b\.subscribe: unknown option; did you mean "subscribes"/],
  ['a misspelt field of the entry', { entry: { step: 'a', emit: ['x'] } }, /entry\.emit: unknown option; did you mean "emits"/],
  ['a misspelt field of the flow', { step: {} }, /step: unknown option; did you mean "steps"/],
  ['a step that does not exist', { steps: { b: { subscribes: ['step:nosuch'] } } }, /no step "nosuch"/],
  ['a misspelt name', { entry: { step: 'a', emits: ['order.paid'] }, steps: { b: { subscribes: ['order.payed'], emits: [] } } }, /did you mean "order\.paid"/],
  ['a cycle', { steps: { b: { subscribes: ['step:c'] }, c: { subscribes: ['step:b'] } } }, /b, c can never run/],
])('refuses a definition with %s, when the wiring is made', async (_, more, message) => {
  await rejects(() => createFlowWiring({ bus, store, queue, flows: [{ ...FLOW, ...more } as any] }), 'NVENT_INVALID', message)
})

it('routes by globs of types and by fields of an event\'s data', async () => {
  const stream = new MemoryStreamAdapter()
  const coordinator = createStreamCoordinator({
    bus, stream, enableStoreSync: false, enableFlowEvents: false,
    channels: [{ name: 'regions', types: ['order.*'], topic: 'w:{data.region}:{data.customer.id}' }],
  })
  await coordinator.start()
  const inbox = new Inbox()
  await stream.subscribe('w:*', (_, topic) => inbox.take(topic))
  await store.append('s', { type: 'order.paid', data: { region: 'eu', customer: { id: 7 } } })
  await store.append('s', { type: 'order.paid', data: { region: 'eu' } })
  await store.append('s', { type: 'orders', data: { region: 'eu', customer: { id: 7 } } })
  expect(await inbox.atLeast(1)).toEqual(['w:eu:7'])
  await coordinator.stop()
  expect(coordinator.stats()).toMatchObject({ routed: { regions: 1 }, skipped: 1 })
  await stream.shutdown()
})

/** A bus as an application writes it. */
class OwnBus {
  readonly handlers = new Map<string, Set<(event: any) => void>>()
  publish(event: any): void {
    for (const type of new Set([event.type, '*'])) this.handlers.get(type)?.forEach(handler => handler(event))
  }

  onType(type: string, handler: (event: any) => void): () => void {
    const handlers = this.handlers.get(type) ?? new Set()
    this.handlers.set(type, handlers.add(handler))
    return () => {
      if (handlers.delete(handler) && handlers.size === 0) this.handlers.delete(type)
    }
  }

  subscribeRunId(): () => void { return () => {} }
}

it('an event keeps its subject on a bus of the application, and nothing is left there in the end', async () => {
  const own = new OwnBus()
  const announced: EventRecord[] = []
  const stop = own.onType('*', event => announced.push(event))
  const orders = new MemoryStoreAdapter({ bus: own as unknown as EventBus })
  const stream = new MemoryStreamAdapter()
  const coordinator = createStreamCoordinator({ bus: own as unknown as EventBus, stream, enableFlowEvents: false })
  await coordinator.start()
  const inbox = new Inbox()
  await stream.subscribe('store-sync:append:*', message => inbox.take(message.data.subject))
  await orders.append('orders', { type: 'a', runId: 'r1' })
  await orders.append('orders', { type: 'a' })
  expect(await inbox.atLeast(2)).toEqual(['orders', 'orders'])
  expect(announced).toHaveLength(2)
  expect(Object.keys(announced[0]!)).toEqual(['id', 'ts', 'type', 'runId'])
  expect((announced[0] as any)[Symbol.for('nvent.subject')]).toBe('orders')
  await coordinator.stop()
  await orders.close()
  stop()
  expect(own.handlers.size).toBe(0)
  await stream.shutdown()
})

it('flow wiring and a store on one bus of the application announce each event once', async () => {
  const own = new OwnBus()
  const announced: string[] = []
  own.onType('*', event => event.id && announced.push(event.type))
  const runs = new MemoryStoreAdapter({ bus: own as unknown as EventBus })
  const flows = createFlowWiring({ bus: own as unknown as EventBus, store: runs, queue, flows: [FLOW] })
  await flows.start()
  own.publish({ type: 'flow.start', runId: 'r1', flowName: 'f' })
  own.publish({ type: 'log', runId: 'r1', flowName: 'f' })
  await until('both are announced', () => announced.length >= 2)
  await flows.stop()
  await runs.close()
  expect(announced).toEqual(['flow.start', 'log'])
})

it('an event whose type is * reaches the handlers of * once', () => {
  const types: string[] = []
  bus.onType('*', event => types.push(event.type))
  bus.publish({ type: '*' })
  expect(types).toEqual(['*'])
})

/** Makes appends of a step's events fail as through an outage. `isApplied` says whether one takes effect nevertheless; undefined: it succeeds. */
function failAppends(fails: (event: NewEvent) => { isApplied: boolean, maybeApplied: boolean } | undefined): void {
  const append = store.stream.append.bind(store.stream)
  store.stream.append = async (subject, event, opts) => {
    const failure = event.type === 'flow.start' || event.type === 'flow.cancel' ? undefined : fails(event)
    if (!failure) return append(subject, event, opts)
    if (failure.isApplied) await append(subject, event, opts)
    throw Object.assign(new Error('the connection failed'), { code: 'NVENT_UNAVAILABLE', retryable: true, maybeApplied: failure.maybeApplied })
  }
}

it.each([
  [{ isApplied: false, maybeApplied: false }],
  [{ isApplied: false, maybeApplied: true }],
  [{ isApplied: true, maybeApplied: true }],
])('each event of a step is stored once, although the first append of each fails: %j', async (failure) => {
  const failed = new WeakSet<NewEvent>()
  failAppends((event) => {
    if (failed.has(event)) return
    failed.add(event)
    return failure
  })
  const flow = defineFlow('steady', { only: { run: async (_, { emit, log }) => {
    await log('info', 'the same')
    await log('info', 'the same')
    await emit('x', 1)
    await emit('x', 2)
    return 'done'
  } } })
  await start({ flows: [flow] })
  const run = await startFlow(flow, {}, { runId: 'r1' })
  expect(await run.result()).toEqual({ status: 'completed' })
  const events = await store.read('nq:flow:r1', { types: ['step.started', 'log', 'emit', 'step.completed', 'step.failed'] })
  expect(events.map(({ type, data }) => [type, data.message ?? data.payload ?? data.result])).toEqual([
    ['step.started', undefined], ['log', 'the same'], ['log', 'the same'], ['emit', 1], ['emit', 2], ['step.completed', 'done'],
  ])
})

it('of two events that a step emits at once, the one that was not stored is stored again', async () => {
  const failed = new WeakSet<NewEvent>()
  failAppends((event) => {
    if (event.type !== 'emit' || failed.has(event)) return
    failed.add(event)
    return { isApplied: event['data'].payload === 1, maybeApplied: true }
  })
  const flow = defineFlow('both', { only: { run: (_, { emit }) => Promise.all([emit('x', 1), emit('x', 2)]) } })
  await start({ flows: [flow] })
  expect(await (await startFlow(flow, {}, { runId: 'r1' })).result()).toEqual({ status: 'completed' })
  expect((await store.read('nq:flow:r1', { types: ['emit'] })).map(({ data }) => data.payload)).toEqual([1, 2])
})

it('an event of a step that cannot be stored is given up when the run is cancelled', async () => {
  const failures: NewEvent[] = []
  failAppends((event) => {
    if (event.type !== 'emit') return
    failures.push(event)
    return { isApplied: false, maybeApplied: false }
  })
  const flow = defineFlow('stuck', { only: { run: (_, { emit }) => emit('x') } })
  await start({ flows: [flow] })
  await startFlow(flow, {}, { runId: 'r1' })
  await until('it was tried again', () => failures.length > 1)
  expect(await cancelFlow(flow, 'r1')).toBe(true)
  await until('the attempt has ended', async () => (await queue.getJob('stuck.only', 'r1__only'))?.state === 'failed')
  expect((await store.read('nq:flow:r1')).at(-1)).toMatchObject({ type: 'step.failed', data: { error: 'the connection failed' } })
})
