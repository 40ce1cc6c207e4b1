/** Compiled, never run: `tsc` is the test. */
/* eslint-disable @typescript-eslint/no-unused-vars -- only the types of values are looked at */
import {
  createAdapters, createEventBus, createFlowWiring, createStreamCoordinator, createWiringRegistry, FileStoreAdapter, isStreamGap,
  MemoryStoreAdapter, MemoryStreamAdapter, NventError,
} from 'nvent-native'
import type {
  Adapters, AdaptersConfig, ErrorCode, EventBus, EventRecord, FileQueueAdapter, MemoryQueueAdapter, QueueAdapter, RedisStoreAdapter,
  RedisStreamAdapter, StepContext, StoreAdapter, StreamAdapter, StreamEvent, StreamGap, Wiring,
} from 'nvent-native'
import * as native from 'nvent-native/native'
import type { NventQueue, NventStore, NventStream, OlderNventStore } from './nvent'

const memory = new MemoryStoreAdapter()
const file = new FileStoreAdapter({ dataDir: 'data', durability: 'disk', retention: { maxAgeMs: 1, maxEventsPerSubject: 1 } })
const stream = new MemoryStreamAdapter({ retain: { maxEvents: 10 } })
declare const queue: QueueAdapter

// The classes are what nvent asks for, and what this package says of itself.
void ([memory, file] satisfies NventStore[])
void ([memory, file] satisfies OlderNventStore[])
void ([memory, file] satisfies StoreAdapter[])
void (stream satisfies NventStream)
void (stream satisfies StreamAdapter)
void (queue satisfies NventQueue)
void (createEventBus() satisfies EventBus)
void ([createFlowWiring({ flows: () => [] }), createStreamCoordinator({ bus: createEventBus(), stream })] satisfies Wiring[])
void (file.backup('copy') satisfies Promise<void>)
void (file.verify() satisfies Promise<{ ok: boolean, problems: string[] }>)

// Both entries are one.
void (new native.MemoryStoreAdapter() satisfies MemoryStoreAdapter)

// What is returned has types.
void (memory.append('s', { type: 'a', anything: 1 }) satisfies Promise<EventRecord>)
void (memory.kv.get<{ n: number }>('k') satisfies Promise<{ n: number } | null>)
void (new NventError('NVENT_INVALID', 'm').code satisfies ErrorCode)

// A misspelt option does not compile.
// @ts-expect-error: dataDir
void new FileStoreAdapter({ datadir: 'data' })
// @ts-expect-error: 'os' or 'disk'
void new FileStoreAdapter({ dataDir: 'data', durability: 'power' })
// @ts-expect-error: maxAgeMs
void new FileStoreAdapter({ dataDir: 'data', retention: { maxAge: 1 } })
// @ts-expect-error: maxEvents
void new MemoryStreamAdapter({ retain: { maxLen: 1 } })
// @ts-expect-error: an event needs a type
void memory.append('s', { data: 1 })
// @ts-expect-error: limit
void memory.read('s', { limits: 1 })
// @ts-expect-error: 'asc' or 'desc'
void memory.stream.read('s', { order: 'ascending' })
// @ts-expect-error: expectedLastId
void memory.stream.append('s', { type: 'a' }, { expectedId: '1-0' })
// @ts-expect-error: expectedVersion
void memory.index.update('k', 'i', {}, { version: 1 })
// @ts-expect-error: fromBeginning
void stream.subscribe('t', () => {}, { fromBegining: true })
// @ts-expect-error: 'drop-oldest', 'drop-newest' or 'block'
void stream.subscribe('t', () => {}, { overflow: 'drop' })
// @ts-expect-error: enableStoreSync
void createStreamCoordinator({ enableStoresync: true })
// @ts-expect-error: a channel needs a topic
void createStreamCoordinator({ channels: [{ name: 'webhook', types: ['flow.completed'] }] })
// @ts-expect-error: subscribes
void createFlowWiring({ flows: [{ id: 'f', steps: { s: { subscribe: ['a'] } } }] })
// @ts-expect-error: streamCoordinator
void createWiringRegistry({ coordinator: {} })
// @ts-expect-error: 'memory', 'file' or 'redis'
void createAdapters({ store: { adapter: 'postgres' } })
// @ts-expect-error: attempts
void queue.enqueue('q', { name: 'n', data: {}, opts: { attempt: 3 } })

// ── events with types

declare module 'nvent-native' {
  interface NventEvents {
    'typed.paid': { amount: number }
    'typed.shipped': { parcel: string }
  }
}

/** Fails to compile where the two are not the same type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const same = <A, B>(_: Same<A, B>): void => {}
declare const step: StepContext

void (async () => {
  const paid = await memory.append('s', { type: 'typed.paid', data: { amount: 5 } })
  same<typeof paid.data, { amount: number }>(true)
  same<typeof paid.id, string>(true)
  const other = await memory.stream.append('s', { type: 'other', data: 1 })
  same<typeof other.data, any>(true)
  const type: string = 'x'
  same<Awaited<ReturnType<typeof memory.append>>['data'], any>(true)
  void memory.append('s', { type })
  // @ts-expect-error: amount is a number
  void memory.append('s', { type: 'typed.paid', data: { amount: '5' } })
  // @ts-expect-error: it has data
  void memory.stream.append('s', { type: 'typed.paid' })

  const bus = createEventBus()
  bus.onType('typed.paid', event => same<typeof event.data, { amount: number }>(true))
  bus.onType('order.*', event => same<typeof event, any>(true))
  bus.publish({ type: 'typed.paid', data: { amount: 1 }, runId: 'r' })
  bus.publish({ type: 'other' })
  // @ts-expect-error: parcel is text
  bus.publish({ type: 'typed.shipped', data: { parcel: 1 } })

  void stream.publish('t', { type: 'typed.paid', data: { amount: 1 } })
  void stream.publish('t', { type: 'other', data: [1] })
  // @ts-expect-error: amount
  void stream.publish('t', { type: 'typed.paid', data: {} })
  void stream.subscribe('t', (event) => {
    same<typeof event, StreamEvent<'typed.paid'> | StreamGap>(true)
    if (event.type === 'stream.gap') same<typeof event.data.missed, number | undefined>(true)
    else same<typeof event.data, { amount: number }>(true)
  }, { filter: 'typed.paid' })
  void stream.subscribe('t', (event) => {
    if (isStreamGap(event)) same<typeof event, StreamGap>(true)
    else same<typeof event.data, any>(true)
  }, { filter: 'order.*', buffer: 5 })
  void stream.subscribe('t', event => same<typeof event.data, any>(true), { filter: /^order/ })
  const handle = (event: StreamEvent): void => void event
  void stream.subscribe('t', (event) => {
    if (event.type !== 'stream.gap') same<typeof event.data, { readonly amount: number }>(true)
    // @ts-expect-error: it is frozen
    event.type = 'other'
  }, { shared: true, filter: 'typed.paid' })
  void stream.subscribe('t', handle)
  void stream.subscribe('t', handle, { filter: 'a.*' })

  void step.emit('typed.shipped', { parcel: 'p' })
  void step.emit('other', 5)
  void step.emit('other')
  // @ts-expect-error: parcel is text
  void step.emit('typed.shipped', { parcel: 5 })

  const job = await queue.getJob<{ order: number }, string>('q', 'j')
  same<NonNullable<typeof job>['data'], { order: number }>(true)
  same<NonNullable<typeof job>['returnvalue'], string | undefined>(true)
  queue.registerWorker<{ order: number }, string>('q', 'n', async ({ data }, { signal }) => {
    same<typeof data.order, number>(true)
    same<typeof signal, AbortSignal>(true)
    return 'done'
  })
  queue.registerWorker('q', 'n', async (job: any) => job.data.anything)
  // @ts-expect-error: order is a number
  void queue.enqueue<{ order: number }>('q', { name: 'n', data: { order: '1' } })
})

// ── adapters by their configuration

void (async () => {
  const byDefault = await createAdapters()
  same<typeof byDefault, Adapters<FileStoreAdapter, MemoryStreamAdapter, FileQueueAdapter>>(true)
  void (byDefault.store.backup('copy') satisfies Promise<void>)
  void (byDefault.queue.backup('copy') satisfies Promise<void>)
  const onRedis = await createAdapters({ store: { adapter: 'redis' }, stream: { adapter: 'redis' }, queue: { adapter: 'memory' } })
  same<typeof onRedis, Adapters<RedisStoreAdapter, RedisStreamAdapter, MemoryQueueAdapter>>(true)
  void onRedis.stream.parked('t', 'g')
  const wide = await createAdapters({} as AdaptersConfig)
  same<typeof wide.store, MemoryStoreAdapter | FileStoreAdapter | RedisStoreAdapter>(true)
  const mixed = await createAdapters({ store: memory, stream: { adapter: 'memory' }, queue })
  same<typeof mixed, Adapters>(true)
  // @ts-expect-error: backup is of files
  void onRedis.store.backup
  // @ts-expect-error: adapter
  void createAdapters({ store: { adaptor: 'memory' } })
})
