/** Compiled, never run: `tsc` is the test. */
import {
  createAdapters, createEventBus, createFlowWiring, createStreamCoordinator, createWiringRegistry, FileStoreAdapter, MemoryStoreAdapter,
  MemoryStreamAdapter, NventError,
} from 'nvent-native'
import type { ErrorCode, EventBus, EventRecord, QueueAdapter, StoreAdapter, StreamAdapter, Wiring } from 'nvent-native'
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
