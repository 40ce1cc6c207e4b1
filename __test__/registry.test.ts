import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  createAdapters, createEventBus, createStreamCoordinator, createWiringRegistry, FileStoreAdapter, getEventBus, MemoryStoreAdapter, MemoryStreamAdapter, setAdapters, shutdownAdapters, useStoreAdapter, useStreamAdapter,
} from 'nvent-native'
import type { QueueAdapter, StreamAdapter, Wiring } from 'nvent-native'
import { afterEach, describe, expect, it } from 'vitest'
import { gate, Inbox, rejects, until } from './support/until'

const stops: Array<() => unknown> = []
const later = (stop: () => unknown): void => void stops.unshift(stop)
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop()
})
const queue = { enqueue: async () => 'id' } as unknown as QueueAdapter

describe('the usage examples of the architecture', () => {
  it('routes what is appended right after start, without an await', async () => {
    const store = new MemoryStoreAdapter()
    const stream = new MemoryStreamAdapter()
    setAdapters({ store, stream, queue })
    later(() => shutdownAdapters({ store, stream }))
    const inbox = new Inbox()
    await stream.subscribe('store-sync:append:*', inbox.take)

    const wiring = createWiringRegistry({
      streamCoordinator: { enableStoreSync: true },
    })
    later(() => wiring.stop())
    wiring.start()

    await store.append('nq:flow:abc-123', { type: 'step.completed', data: { result: 42 } })

    const [event] = await inbox.atLeast(1)
    expect(event.data).toMatchObject({ subject: 'nq:flow:abc-123', event: { type: 'step.completed', data: { result: 42 } } })
  })

  it('serves cache invalidation, coordination and clients', async () => {
    setAdapters({ store: new MemoryStoreAdapter(), stream: new MemoryStreamAdapter(), queue })
    later(() => shutdownAdapters())
    const wiring = createWiringRegistry({ streamCoordinator: { enableStoreSync: true, enableFlowEvents: true, enableClientMessages: true } })
    later(() => wiring.stop())
    wiring.start()
    const stream = useStreamAdapter()
    const [invalidated, completed, client] = [new Inbox<string>(), new Inbox<string>(), new Inbox()]
    await stream.subscribe('store-sync:append:*', async (event) => {
      invalidated.take(event.data.subject)
    })
    await stream.subscribe('flow:event:*', async (event) => {
      if (event.type === 'flow.completed') completed.take(event.data.flowName)
    })
    await stream.subscribe('client:flow:abc-123', async (event) => {
      client.take(event.data.event)
    })

    const store = useStoreAdapter()
    const stored = await store.append('nq:flow:abc-123', { type: 'flow.completed', runId: 'abc-123', flowName: 'process-order' })

    expect(await invalidated.atLeast(1)).toEqual(['nq:flow:abc-123'])
    expect(await completed.atLeast(1)).toEqual(['process-order'])
    expect(await client.atLeast(1)).toEqual([stored])
  })

  it('lets a user\'s own wiring subscribe to the bus and publish to the stream', async () => {
    setAdapters({ store: new MemoryStoreAdapter(), stream: new MemoryStreamAdapter(), queue })
    later(() => shutdownAdapters())
    function createWebhookWiring(): Wiring {
      const bus = getEventBus()
      const stream = useStreamAdapter()
      let off = (): void => {}
      return {
        start() {
          off = bus.onType('flow.completed', async (e) => {
            await stream.publish(`webhook:${e.flowName}`, { type: 'webhook.trigger', data: { event: e } })
          })
        },
        stop: () => off(),
      }
    }
    const wiring = createWiringRegistry({ wirings: [createWebhookWiring()] })
    later(() => wiring.stop())
    await wiring.start()
    const inbox = new Inbox()
    await useStreamAdapter().subscribe('webhook:*', inbox.take)
    const event = await useStoreAdapter().append('nq:flow:r', { type: 'flow.completed', runId: 'r', flowName: 'order' })
    expect(await inbox.atLeast(1)).toEqual([{ type: 'webhook.trigger', data: { event } }])
  })
})

it('works from what createAdapters made current', async () => {
  await createAdapters({ store: { adapter: 'memory' }, stream: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  later(() => shutdownAdapters())
  const wiring = createWiringRegistry()
  later(() => wiring.stop())
  await wiring.start()
  const inbox = new Inbox()
  await useStreamAdapter().subscribe('flow:event:*', inbox.take)
  getEventBus().publish({ type: 'flow.start', runId: 'r', flowName: 'order' })
  expect((await inbox.atLeast(1))[0].data).toMatchObject({ runId: 'r', flowName: 'order' })
  expect(await useStoreAdapter().read('nq:flow:r')).toMatchObject([{ type: 'flow.start' }])
  await until('both counted', () => wiring.stats().streamCoordinator.routed.flow === 1 && wiring.stats().flow.persisted === 1)
})

it('gives the coordinator the subject of runs, for stored events that come over the bus without one', async () => {
  const [bus, store, stream] = [createEventBus(), new MemoryStoreAdapter({ bus: null }), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const wiring = createWiringRegistry({ bus, store, stream, flow: { subjects: { run: 'own:{runId}' } } })
  await wiring.start()
  const inbox = new Inbox<[string, string]>()
  await stream.subscribe('store-sync:*', ({ data }, topic) => inbox.take([topic, data.subject]))
  bus.publish({ id: '1-0', ts: 1, type: 'note', runId: 'r' })
  expect(await inbox.atLeast(1)).toEqual([['store-sync:append:own:r', 'own:r']])
})

it('what ends finds the current adapters until it has ended, then there are none', async () => {
  const adapters = await createAdapters({ store: { adapter: 'memory' }, stream: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  const { opened, open } = gate()
  const stored: string[] = []
  const store = async (type: string): Promise<void> => void stored.push((await useStoreAdapter().append('s', { type })).type)
  const wiring = createWiringRegistry({ wirings: [{ start: () => {}, stop: () => store('stopped') }] })
  await wiring.start()
  const begun = new Inbox()
  adapters.queue.registerWorker('q', 'job', async (job) => {
    begun.take(job)
    await opened
    await store('job')
  })
  adapters.queue.startProcessingQueue('q')
  await adapters.queue.enqueue('q', { name: 'job', data: 1 })
  await begun.atLeast(1)
  const ending = shutdownAdapters()
  open()
  await ending
  expect(stored).toEqual(['job', 'stopped'])
  await rejects(async () => useStoreAdapter(), 'NVENT_NOT_FOUND')
})

it('counts nothing before its first start', () => {
  expect(createWiringRegistry({ triggers: [], webhooks: [] }).stats()).toEqual({
    streamCoordinator: { routed: {}, skipped: 0, failed: 0, lag: 0 },
    flow: { persisted: 0, triggered: 0, completed: 0, failed: 0, retries: 0, lag: 0, lost: 0, errors: 0, recovered: 0 },
    triggers: { triggers: 0, fired: 0, started: 0, failed: 0, depth: 0, waiting: 0, parked: 0 },
    webhooks: { webhooks: 0, taken: 0, skipped: 0, attempts: 0, delivered: 0, failed: 0, parked: 0, running: 0 },
  })
})

it('a coordinator that delivers at least once needs a store that lasts', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const wiring = createWiringRegistry({ store, stream, flow: false, streamCoordinator: { delivery: 'at-least-once' } })
  await rejects(async () => wiring.start(), 'NVENT_INVALID', /^streamCoordinator\.delivery: "at-least-once" needs a file or Redis store/)
})

it('omits flow wiring where it is disabled', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const wiring = createWiringRegistry({ store, stream, flow: false })
  later(() => wiring.stop())
  await wiring.start()
  getEventBus().publish({ type: 'flow.start', runId: 'r', flowName: 'order' })
  await store.append('nq:flow:r', { type: 'note' })
  await wiring.stop()
  expect((await store.read('nq:flow:r')).map(event => event.type)).toEqual(['note'])
})

it('starts wirings of one\'s own after the built-in ones, and stops them before, last first', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const inbox = new Inbox()
  await stream.subscribe('store-sync:*', inbox.take)
  const calls: string[] = []
  const own = (name: string): Wiring => ({
    start: async () => {
      await store.append(name, { type: 'started' })
      calls.push(`start ${name}`)
    },
    stop: async () => {
      await store.append(name, { type: 'stopped' })
      calls.push(`stop ${name}`)
    },
  })
  const wiring = createWiringRegistry({ store, stream, wirings: [own('a'), own('b')] })
  await wiring.start()
  await wiring.start()
  await wiring.stop()
  await wiring.stop()
  expect(calls).toEqual(['start a', 'start b', 'stop b', 'stop a'])
  expect((await inbox.atLeast(4)).map(event => event.data.event.type)).toEqual(['started', 'started', 'stopped', 'stopped'])
})

it('stops what it has started when a later one fails, and can be started again', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const calls: string[] = []
  let broken = true
  const wiring = createWiringRegistry({
    store, stream,
    wirings: [
      { start: () => void calls.push('start'), stop: () => void calls.push('stop') },
      { start: () => { if (broken) throw new Error('not today') }, stop: () => {} },
    ],
  })
  await expect(Promise.resolve(wiring.start())).rejects.toThrow('not today')
  expect(calls).toEqual(['start', 'stop'])
  broken = false
  await wiring.start()
  await wiring.stop()
  expect(calls).toEqual(['start', 'stop', 'start', 'stop'])
})

it('fails to start only once what it had started is stopped', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const calls: string[] = []
  const wiring = createWiringRegistry({
    store, stream, flow: false,
    wirings: [
      {
        start: () => {},
        stop: async () => {
          await new Promise(resolve => setImmediate(resolve))
          calls.push('stopped')
        },
      },
      { start: () => { throw new Error('not today') }, stop: () => {} },
    ],
  })
  await expect(Promise.resolve(wiring.start())).rejects.toThrow('not today')
  expect(calls).toEqual(['stopped'])
})

it('a coordinator whose store cannot be opened fails to start', async () => {
  const dir = await mkdtemp(path.join(tmpdir(), 'nvent-registry-'))
  later(() => rm(dir, { recursive: true }))
  await writeFile(path.join(dir, 'file'), '')
  const [store, stream] = [new FileStoreAdapter({ dataDir: path.join(dir, 'file') }), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const coordinator = createStreamCoordinator({ store, stream, delivery: 'at-least-once' })
  later(() => coordinator.stop())
  await rejects(async () => coordinator.start(), 'NVENT_IO')
})

it('starts again only once a stop that is under way has ended', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const calls: string[] = []
  const { opened, open } = gate()
  const wiring = createWiringRegistry({
    store, stream, flow: false,
    wirings: [{
      start: () => void calls.push('start'),
      stop: async () => {
        await opened
        calls.push('stopped')
      },
    }],
  })
  later(() => wiring.stop())
  await wiring.start()
  const changes = [wiring.stop(), wiring.start()]
  open()
  await Promise.all(changes)
  expect(calls).toEqual(['start', 'stopped', 'start'])
})

it('stops the others where one cannot be stopped, and rejects with its error', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  const calls: string[] = []
  const wiring = createWiringRegistry({
    store, stream, flow: false,
    wirings: [
      { start: () => {}, stop: () => void calls.push('stop') },
      { start: () => {}, stop: () => { throw new Error('not today') } },
    ],
  })
  await wiring.start()
  await expect(Promise.resolve(wiring.stop())).rejects.toThrow('not today')
  expect(calls).toEqual(['stop'])
})

it.each<[string, any, RegExp]>([
  ['a misspelt option', { streamCordinator: {} }, /streamCordinator.*streamCoordinator/],
  ['a misspelt option of the coordinator', { streamCoordinator: { enableStoresync: true } }, /^streamCoordinator\.enableStoresync.*enableStoreSync/],
  ['flow: true', { flow: true }, /flow/],
  ['a wiring that is none', { wirings: [{ start() {} }] }, /wirings\[0\]\.stop/],
])('refuses %s', async (_what, opts, message) => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  later(() => shutdownAdapters({ store, stream }))
  await rejects(async () => createWiringRegistry({ store, stream: stream as StreamAdapter, ...opts }).start(), 'NVENT_INVALID', message)
})
