import { EventEmitter } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createEventBus, createStreamCoordinator, createWiringRegistry, FileStoreAdapter, MemoryStoreAdapter, MemoryStreamAdapter, setAdapters, shutdownAdapters } from 'nvent-native'
import type { EventBus, StreamAdapter, StreamCoordinatorParts, StreamEvent } from 'nvent-native'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { gate, Inbox, rejects, until } from './support/until'

let bus: EventBus
let store: MemoryStoreAdapter
let stream: MemoryStreamAdapter
let arrived: Inbox<[topic: string, event: StreamEvent]>
const started: Array<{ stop: () => unknown }> = []

beforeEach(async () => {
  bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  stream = new MemoryStreamAdapter()
  arrived = new Inbox()
  await stream.subscribe('*', (event, topic) => arrived.take([topic, event]))
})
afterEach(async () => {
  for (const wiring of started.splice(0)) await wiring.stop()
  await store.close()
  await stream.shutdown()
})

async function coordinate(opts: StreamCoordinatorParts = {}): Promise<ReturnType<typeof createStreamCoordinator>> {
  const coordinator = createStreamCoordinator({ bus, stream, ...opts })
  started.push(coordinator)
  await coordinator.start()
  return coordinator
}
const topics = (): string[] => arrived.items.map(([topic]) => topic)
const on = (topic: string): StreamEvent[] => arrived.items.filter(([other]) => other === topic).map(([, event]) => event)
const append = (type: string, more = {}) => store.append('nq:flow:r1', { type, runId: 'r1', flowName: 'order', ...more })

it('publishes each of the three channels with its topics, types and data', async () => {
  const coordinator = await coordinate({ enableClientMessages: true, instanceId: 'me' })
  const event = await append('flow.completed', { data: { a: [1] } })
  const rest = { timestamp: expect.any(Number), metadata: { instanceId: 'me' } }
  expect(await arrived.atLeast(5)).toEqual([
    ['store-sync:append:nq:flow:r1', { type: 'store.append', data: { subject: 'nq:flow:r1', event }, ...rest }],
    ['flow:event:r1', { type: 'flow.completed', data: { runId: 'r1', flowName: 'order', event }, ...rest }],
    ['flow:trigger:order', { type: 'flow.trigger', data: { flowName: 'order', runId: 'r1', cause: 'flow.completed', event }, ...rest }],
    ['client:flow:r1', { type: 'flow.event', data: { event }, ...rest }],
    ['client:ui:flow:order', { type: 'ui.flow', data: { flowName: 'order', runId: 'r1', status: 'completed', ts: event.ts }, ...rest }],
  ])
  await until('all counted', () => coordinator.stats().lag === 0)
  expect(coordinator.stats()).toMatchObject({ routed: { 'store-sync': 1, 'flow': 2, 'client': 2 }, skipped: 0, failed: 0, lag: 0 })
})

it('routes lifecycle events to the flow channel, terminal ones and emits to triggers, and nothing to clients by default', async () => {
  await coordinate()
  const types = ['flow.start', 'step.started', 'step.completed', 'emit', 'log', 'flow.stalled', 'flow.failed', 'flow.cancel', 'flow.completed']
  for (const type of types) await append(type)
  await arrived.atLeast(types.length + 6 + 4)
  expect(on('store-sync:append:nq:flow:r1').map(event => event.data.event.type)).toEqual(types)
  expect(on('flow:event:r1').map(event => event.type)).toEqual(['flow.start', 'emit', 'flow.stalled', 'flow.failed', 'flow.cancel', 'flow.completed'])
  expect(on('flow:trigger:order').map(event => event.data.cause)).toEqual(['emit', 'flow.failed', 'flow.cancel', 'flow.completed'])
  expect(topics().filter(topic => topic.startsWith('client:'))).toEqual([])
})

it('publishes every event to clients, and a status when it changes', async () => {
  await coordinate({ enableStoreSync: false, enableFlowEvents: false, enableClientMessages: true })
  const types = ['flow.start', 'step.started', 'step.completed', 'flow.stalled', 'step.started', 'flow.cancel', 'step.completed']
  for (const type of types) await append(type)
  await arrived.atLeast(types.length + 4)
  expect(on('client:flow:r1').map(event => event.data.event.type)).toEqual(types)
  expect(on('client:ui:flow:order').map(event => event.data.status)).toEqual(['running', 'stalled', 'running', 'canceled'])
})

it('lets each channel be turned off', async () => {
  const coordinator = await coordinate({ enableStoreSync: false, enableFlowEvents: false })
  await append('flow.start')
  await coordinator.stop()
  expect(arrived.items).toEqual([])
})

it('takes other types for the flow channel', async () => {
  const coordinator = await coordinate({ enableStoreSync: false, flowEventTypes: ['step.completed'] })
  await append('flow.start')
  await append('step.completed')
  await coordinator.stop()
  await arrived.atLeast(1)
  expect(topics()).toEqual(['flow:event:r1'])
})

it('routes persisted events only', async () => {
  const coordinator = await coordinate()
  bus.publish({ type: 'flow.start', runId: 'ingress', flowName: 'order' })
  await append('flow.start')
  await coordinator.stop()
  await arrived.atLeast(2)
  expect(topics()).toEqual(['store-sync:append:nq:flow:r1', 'flow:event:r1'])
})

it('takes the run from the subject where the event has none', async () => {
  await coordinate()
  await store.append('nq:flow:abc-123', { type: 'step.completed', data: { result: 42 } })
  await store.append('nq:flow:abc-123', { type: 'flow.completed' })
  await arrived.atLeast(3)
  expect(topics()).toEqual(['store-sync:append:nq:flow:abc-123', 'store-sync:append:nq:flow:abc-123', 'flow:event:abc-123'])
})

it('treats a row of one\'s own as a channel like any other', async () => {
  const coordinator = await coordinate({
    channels: [
      { name: 'webhook', types: ['flow.completed'], topic: 'webhook:{flowName}', type: 'webhook.trigger' },
      { name: 'audit', types: ['order.paid'], topic: 'audit:{tenant}:{subject}' },
    ],
  })
  const completed = await append('flow.completed')
  const paid = await store.append('orders', { type: 'order.paid', tenant: 'acme' })
  await store.append('orders', { type: 'order.paid' })
  await coordinator.stop()
  await until('both arrived', () => on('webhook:order').length + on('audit:acme:orders').length === 2)
  expect(on('webhook:order')[0]).toMatchObject({ type: 'webhook.trigger', data: { event: completed } })
  expect(on('audit:acme:orders')[0]).toMatchObject({ type: 'order.paid', data: { event: paid } })
  expect(coordinator.stats()).toMatchObject({ routed: { webhook: 1, audit: 1 }, skipped: 1 })
})

it('puts one instanceId per process into every message by default', async () => {
  await coordinate()
  await append('flow.start')
  const ids = (await arrived.atLeast(2)).map(([, event]) => event.metadata!['instanceId'])
  expect(new Set(ids).size).toBe(1)
  expect(ids[0]).toMatch(/./)
})

it('keeps the order of each subject, end to end', async () => {
  await coordinate()
  const subjects = ['a', 'b', 'c']
  for (let n = 0; n < 300; n++) void store.append(`nq:flow:${subjects[n % 3]}`, { type: 'emit', n })
  await arrived.atLeast(600)
  for (const subject of subjects) {
    const expected = Array.from({ length: 300 }, (_, n) => n).filter(n => subjects[n % 3] === subject)
    expect(on(`store-sync:append:nq:flow:${subject}`).map(event => event.data.event.n)).toEqual(expected)
    expect(on(`flow:event:${subject}`).map(event => event.data.event.n)).toEqual(expected)
  }
})

it('routes nothing before start and after stop, drains on stop, and starts again', async () => {
  await append('flow.start')
  const coordinator = await coordinate({ enableFlowEvents: false })
  await coordinator.start()
  for (let n = 0; n < 100; n++) void append('step.completed', { n })
  await coordinator.stop()
  await coordinator.stop()
  await append('flow.completed')
  await arrived.atLeast(100)
  await coordinator.start()
  await append('flow.cancel')
  await arrived.atLeast(101)
  expect(arrived.items.map(([, event]) => event.data.event.type).filter(type => type !== 'step.completed')).toEqual(['flow.cancel'])
})

/** Returns a bus without "*", and the emitter behind it. */
function emitterBus(): { emitter: EventEmitter, own: EventBus } {
  const emitter = new EventEmitter()
  const own: EventBus = {
    publish: event => void emitter.emit(event.type, event),
    onType: (type, handler) => {
      emitter.on(type, handler)
      return () => emitter.off(type, handler)
    },
    subscribeRunId: () => () => {},
  }
  return { emitter, own }
}

describe('with JavaScript objects', () => {
  /** Any object with the methods of a stream. */
  class OwnStream {
    readonly published = new Inbox<[topic: string, event: StreamEvent]>()
    constructor(private readonly behave: () => Promise<void> = async () => {}) {}
    async publish(topic: string, event: StreamEvent): Promise<void> {
      this.published.take([topic, event])
      await this.behave()
    }
  }
  const asStream = (own: OwnStream): StreamAdapter => own as unknown as StreamAdapter

  it('publishes to a stream of one\'s own, in order', async () => {
    const own = new OwnStream()
    await coordinate({ stream: asStream(own), enableFlowEvents: false, instanceId: 'me' })
    const events = await Promise.all(Array.from({ length: 50 }, (_, n) => append('emit', { n })))
    expect((await own.published.atLeast(50)).map(([, event]) => event.data.event)).toEqual(events)
    expect(own.published.items[0]).toEqual(['store-sync:append:nq:flow:r1', {
      type: 'store.append', data: { subject: 'nq:flow:r1', event: events[0] }, timestamp: expect.any(Number), metadata: { instanceId: 'me' },
    }])
  })

  it.each([
    { reaches: 'the subscribers of every process', shared: true, times: [1, 0] },
    { reaches: 'its own subscribers', shared: false, times: [1, 1] },
  ])('on a store that several use, gets every event once where it reaches $reaches', async ({ shared, times }) => {
    const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-coordinator-'))
    const [files, published] = [new FileStoreAdapter({ bus, dataDir }), [new Inbox(), new Inbox()]]
    for (const { take } of published) {
      await coordinate({ store: files, enableFlowEvents: false, stream: { shared, publish: async (_topic, { data }) => take(data.event.type) } as StreamAdapter })
    }
    for (const type of ['a', 'b', 'c']) await files.append('s', { type })
    for (const wiring of started.splice(0)) await wiring.stop()
    expect(published.map(({ items }) => items)).toEqual(times.map(count => ['a', 'b', 'c'].slice(0, 3 * count)))
    await files.close()
    await rm(dataDir, { recursive: true })
  })

  it('fails no append because a stream fails, and counts what failed', async () => {
    const own = new OwnStream(async () => { throw new Error('the broker is away') })
    const coordinator = await coordinate({ stream: asStream(own), enableFlowEvents: false })
    expect(await append('flow.start')).toMatchObject({ type: 'flow.start' })
    await until('given up', () => coordinator.stats().failed === 1, 30_000)
    expect(coordinator.stats()).toMatchObject({ routed: {}, lag: 0 })
  })

  it('holds up no append because a stream hangs, shows the lag, and stops all the same', async () => {
    const { opened, open } = gate()
    const own = new OwnStream(() => opened)
    const coordinator = await coordinate({ stream: asStream(own), enableFlowEvents: false })
    for (let n = 0; n < 100; n++) await append('emit', { n })
    expect(coordinator.stats().lag).toBe(100)
    const stopping = coordinator.stop()
    open()
    await stopping
    expect(own.published.items).toHaveLength(100)
    expect(coordinator.stats().lag).toBe(0)
  })

  it('subscribes to a bus of one\'s own, on which a persisted event has the subject of its run', async () => {
    const { emitter, own } = emitterBus()
    const coordinator = await coordinate({ bus: own })
    own.publish({ type: 'flow.start', runId: 'r9', flowName: 'order' })
    const event = { id: '5-0', ts: 5, type: 'flow.start', runId: 'r9', flowName: 'order' }
    own.publish(event)
    expect((await arrived.atLeast(2)).map(([topic, { data }]) => [topic, data])).toEqual([
      ['store-sync:append:nq:flow:r9', { subject: 'nq:flow:r9', event }],
      ['flow:event:r9', { runId: 'r9', flowName: 'order', event }],
    ])
    await coordinator.stop()
    expect(emitter.eventNames()).toEqual([])
  })

  it('asks a bus without "*" for the types of its channels', async () => {
    const { own } = emitterBus()
    await coordinate({ bus: own, enableStoreSync: false, flowEventTypes: ['my.flow'], channels: [{ name: 'own', types: ['my.type'], topic: 'own:{runId}' }] })
    for (const type of ['my.type', 'my.flow']) own.publish({ id: '5-0', ts: 5, type, runId: 'r' })
    await arrived.atLeast(2)
    expect(topics().sort()).toEqual(['flow:event:r', 'own:r'])
  })

  it('receives an event once on a bus that calls its type\'s handlers and those of everything', async () => {
    const handlers = new Map<string, Set<(event: any) => void>>()
    const own: EventBus = {
      publish: event => [event.type, '*'].forEach(type => handlers.get(type)?.forEach(handler => handler(event))),
      onType: (type, handler) => {
        handlers.set(type, (handlers.get(type) ?? new Set()).add(handler))
        return () => handlers.get(type)!.delete(handler)
      },
      subscribeRunId: () => () => {},
    }
    const coordinator = await coordinate({ bus: own, enableFlowEvents: false, channels: [{ name: 'own', types: ['my.type'], topic: 'own:{runId}' }] })
    own.publish({ id: '5-0', ts: 5, type: 'flow.start', runId: 'r' })
    const again = { id: '6-0', ts: 6, type: 'my.type', runId: 'r' }
    own.publish(again)
    await arrived.atLeast(3)
    // The same object, published once more, is one more event.
    own.publish(again)
    await coordinator.stop()
    await arrived.atLeast(5)
    const both = ['store-sync:append:nq:flow:r', 'own:r']
    expect(topics()).toEqual([both[0], ...both, ...both])
  })
})

describe('on a store that is durable', () => {
  let dataDir: string
  let file: FileStoreAdapter
  beforeEach(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-coordinator-'))
    file = new FileStoreAdapter({ dataDir, bus })
    await file.init()
  })
  afterEach(async () => {
    for (const wiring of started.splice(0)) await wiring.stop()
    await shutdownAdapters({ store: file })
    await rm(dataDir, { recursive: true })
  })
  const other = createEventBus()

  it.each<[string, StreamCoordinatorParts, boolean]>([
    ['its feed is followed where it announces on the same bus', {}, true],
    ['its feed is followed under a name of one\'s own', { consumer: 'mine' }, true],
    ['not where it announces on another bus', { bus: other }, false],
    ['also where it announces on another bus, with at-least-once', { bus: other, delivery: 'at-least-once' }, true],
    ['not with at-most-once', { delivery: 'at-most-once' }, false],
  ])('%s', async (_what, opts, isFollowed) => {
    for (const isGiven of [true, false]) {
      setAdapters({ store: file })
      const coordinator = await coordinate({ ...opts, ...isGiven ? { store: file } : {} })
      const names = (await file.consumers()).map(({ name }) => name)
      expect(names.length > 0).toBe(isFollowed)
      if (opts.consumer) expect(names[0]).toMatch(/^mine/)
      await coordinator.stop()
      for (const name of names) await file.deleteConsumer(name)
    }
  })

  it('a memory store is never followed, and refused with at-least-once', async () => {
    await coordinate({ store })
    expect(await store.consumers()).toEqual([])
    await rejects(() => createStreamCoordinator({ bus, stream, store, delivery: 'at-least-once' }).start(), 'NVENT_INVALID', /^delivery: "at-least-once" needs a file or Redis store/)
  })
})

it.each<[string, any, RegExp]>([
  ['a misspelt option', { enableStoreSyn: true }, /enableStoreSyn.*enableStoreSync/],
  ['another type', { enableFlowEvents: 'yes' }, /enableFlowEvents/],
  ['a stream that is none', { stream: {} }, /stream/],
  ['a bus that is none', { bus: { publish() {} } }, /bus.*onType/],
  ['a row without topic', { channels: [{ name: 'x', types: ['*'] }] }, /channels\[0\]\.topic/],
  ['a row with a misspelt field', { channels: [{ name: 'x', types: ['*'], topic: 'x', tpye: 'y' }] }, /channels\[0\]\.tpye/],
  ['a row named like a channel', { channels: [{ name: 'flow', types: ['*'], topic: 'x' }] }, /channels\[0\]\.name/],
  ['two rows of one name', { channels: [{ name: 'x', types: ['*'], topic: 'x' }, { name: 'x', types: ['*'], topic: 'y' }] }, /channels\[1\]\.name/],
  ['a consumer without a usable name', { consumer: 'x'.repeat(10_000) }, /^consumer: /],
  ['a place that is not closed', { channels: [{ name: 'x', types: ['*'], topic: 'x:{runId' }] }, /channels\[0\]\.topic/],
])('refuses %s where the coordinator or its registry is made', async (_what, opts, message) => {
  await rejects(() => createStreamCoordinator({ bus, stream, ...opts }), 'NVENT_INVALID', message)
  const { stream: onStream = stream, bus: onBus = bus, ...streamCoordinator } = opts
  await rejects(() => createWiringRegistry({ bus: onBus, stream: onStream, streamCoordinator }), 'NVENT_INVALID', new RegExp(message.source.replace(/^\^?(channels|consumer)/, '^streamCoordinator\\.$1')))
})
