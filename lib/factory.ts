import { fields, object, options } from './check'
import { invalid, NventError } from './errors'
import { adapterOptions, adaptersOptions, currentAdapters, inConfiguration } from './options/adapters.js'
import type { AdapterOptions } from './options/adapters.js'
import { DRAINS, FileQueueAdapter, MemoryQueueAdapter } from './queue'
import { RedisStoreAdapter, RedisStreamAdapter } from './redis'
import { FileStoreAdapter, MemoryStoreAdapter } from './store'
import { running } from './running'
import { MemoryStreamAdapter } from './stream'
import type { Adapters, AdaptersConfig, AdaptersInput, QueueAdapter, StoreAdapter, StreamAdapter } from './types'

const key = Symbol.for('nvent-native.adapters')
const shared = globalThis as { [key]?: Partial<Adapters> }
/** The current adapters of this JavaScript environment, which all loaded copies of the package share. */
const current = shared[key] ??= {}

interface Stores { memory: MemoryStoreAdapter, file: FileStoreAdapter, redis: RedisStoreAdapter }
interface Streams { memory: MemoryStreamAdapter, redis: RedisStreamAdapter }
interface Queues { memory: MemoryQueueAdapter, file: FileQueueAdapter }

/**
 * Creates and opens adapters and makes them current. A store, stream or queue may also be an object of the application, such as
 * a queue on BullMQ: it is opened as the others are.
 */
export function createAdapters<
  Store extends keyof Stores = 'file', Stream extends keyof Streams = 'memory', Queue extends keyof Queues = 'file',
>(config?: AdaptersConfig<Store, Stream, Queue>): Promise<Adapters<Stores[Store], Streams[Stream], Queues[Queue]>>
export function createAdapters(config: AdaptersInput): Promise<Adapters>
export async function createAdapters(config: AdaptersInput = {}): Promise<Adapters> {
  const { store, stream, queue, ...rest } = Object.fromEntries(fields('config', object('config', config))) as AdaptersInput
  const own = { store: given('store', store), stream: given('stream', stream), queue: given('queue', queue) }
  const sections = Object.fromEntries(Object.entries({ store, stream, queue }).filter(([kind]) => !own[kind as keyof Adapters]))
  const made = adapterOptions(options('', { ...rest, ...sections }, adaptersOptions))
  const adapters: Adapters = {
    store: own.store ?? makeAdapter('store', made.store.adapter, made),
    stream: own.stream ?? makeAdapter('stream', made.stream.adapter, made),
    queue: own.queue ?? makeAdapter('queue', made.queue.adapter, made),
  }
  try {
    // An object of the application may have nothing to open.
    await Promise.all(Object.values(adapters).map((adapter: { init?: () => Promise<void> }) => adapter.init?.()))
  }
  catch (error) {
    // Closes those that were opened.
    await shutdownAdapters(adapters).catch(() => {})
    throw error
  }
  setAdapters(adapters)
  return adapters
}

const MAKERS = {
  store: {
    memory: ({ store }: AdapterOptions) => new MemoryStoreAdapter(store.memory),
    file: ({ store }: AdapterOptions) => new FileStoreAdapter(store.file),
    redis: ({ store }: AdapterOptions) => new RedisStoreAdapter(store.redis),
  },
  stream: {
    memory: ({ stream }: AdapterOptions) => new MemoryStreamAdapter(stream.memory),
    redis: ({ stream }: AdapterOptions) => new RedisStreamAdapter(stream.redis),
  },
  queue: {
    memory: ({ queue }: AdapterOptions) => new MemoryQueueAdapter(queue.memory),
    file: ({ queue }: AdapterOptions) => new FileQueueAdapter(queue.file),
  },
}

/** Makes an adapter from a configuration that was checked. What is still wrong is named by its path in the configuration. */
function makeAdapter<K extends keyof Adapters>(kind: K, backend: string, made: AdapterOptions): Adapters[K] {
  try {
    return (MAKERS[kind] as Record<string, (made: AdapterOptions) => any>)[backend]!(made)
  }
  catch (error) {
    if (!(error instanceof NventError)) throw error
    throw new NventError(error.code, inConfiguration(kind, (made[kind] as any)[backend], error.message), { retryable: error.retryable, cause: error })
  }
}

/** What is called on an object of the application. */
const NEEDED = {
  store: ['append', 'read', 'close'],
  stream: ['publish', 'subscribe', 'shutdown'],
  queue: ['init', 'enqueue', 'getJob', 'getJobs', 'on', 'registerWorker', 'startProcessingQueue', 'close'],
} as const

/** Returns the adapter that a section is, if it is one: an object with the method by which its kind is known. */
function given<K extends keyof Adapters>(kind: K, section: unknown): Adapters[K] | undefined {
  if (section === undefined || section === null) return
  const value: any = object(kind, section)
  const isAdapter = kind === 'store' ? typeof (value.stream?.append ?? value.append) === 'function' : METHODS[kind] in value
  if (!isAdapter) return
  // A store may have its events on `stream` alone.
  const has = (method: string): boolean => typeof (value[method] ?? (kind === 'store' ? value.stream?.[method] : undefined)) === 'function'
  const missing = NEEDED[kind].filter(method => !has(method))
  if (missing.length > 0) throw invalid(`${kind}: is no ${kind} adapter, it has no ${missing.join(', ')}`)
  return value
}

const METHODS = { store: 'stream', stream: 'publish', queue: 'enqueue' } as const

export function setAdapters(adapters: Partial<Adapters>): void {
  const given = options('adapters', object('adapters', adapters), currentAdapters)
  for (const [kind, adapter] of Object.entries(given)) {
    if (adapter === undefined) continue
    const method = METHODS[kind as keyof Adapters]
    const has = (adapter as any)[method] ?? (kind === 'store' ? (adapter as any).append : undefined)
    if (has === undefined) throw invalid(`adapters.${kind}: is no ${kind} adapter, it has no ${method}`)
  }
  Object.assign(current, Object.fromEntries(Object.entries(given).filter(([, adapter]) => adapter !== undefined)))
}

/** Returns the current adapter of a kind. */
export function currentAdapter<K extends keyof Adapters>(kind: K): Adapters[K]
export function currentAdapter<K extends keyof Adapters>(kind: K, needed: false): Adapters[K] | undefined
export function currentAdapter<K extends keyof Adapters>(kind: K, needed = true): Adapters[K] | undefined {
  const adapter = current[kind]
  if (!adapter && needed) {
    throw new NventError('NVENT_NOT_FOUND', `there is no ${kind} adapter yet: await createAdapters(), or call setAdapters({ ${kind} }) first`)
  }
  return adapter
}

export const useStoreAdapter = (): StoreAdapter => currentAdapter('store')
export const useStreamAdapter = (): StreamAdapter => currentAdapter('stream')
export const useQueueAdapter = (): QueueAdapter => currentAdapter('queue')

const KINDS = ['queue', 'stream', 'store'] as const

/** Adapters of each kind that end together. */
type Ending = { [K in keyof Adapters]: Set<Adapters[K]> }

/**
 * Ends adapters and the wirings that use them, in the order that loses nothing: queues drain, wirings drain, then queues,
 * streams and stores close. What fails is reported when everything has ended.
 */
async function end(ending: Ending): Promise<void> {
  const failures: unknown[] = []
  const attempt = async (work: () => unknown): Promise<void> => {
    try {
      await work()
    }
    catch (error) {
      failures.push(error)
    }
  }
  const all = <T>(items: Iterable<T>, work: (item: T) => unknown): Promise<unknown> =>
    Promise.all(Array.from(items, item => attempt(() => work(item))))
  // A foreign queue closes when its jobs have ended. An adapter may have nothing to close.
  await all(ending.queue, (queue: any) => queue[DRAINS] ? queue.drain() : queue.close?.())
  for (const wiring of [...running].reverse()) {
    const isUsed = KINDS.some(kind => wiring[kind] !== undefined && ending[kind].has(wiring[kind] as never))
    if (isUsed) await attempt(() => wiring.stop())
  }
  // Until here jobs and wirings that end find them. Others may be current by now.
  for (const kind of KINDS) {
    if (current[kind] !== undefined && ending[kind].has(current[kind] as never)) delete current[kind]
  }
  await all(ending.queue, (queue: any) => queue[DRAINS] && queue.close())
  await all(ending.stream, stream => stream.shutdown?.())
  await all(ending.store, store => store.close?.())
  if (failures.length > 0) throw failures[0]
}

/**
 * Ends adapters, by default the current ones, and the wirings that use them: queues drain, wirings drain, then queues,
 * streams and stores close.
 */
export async function shutdownAdapters(adapters: Partial<Adapters> = { ...current }): Promise<void> {
  const set = <T>(adapter: T | undefined): Set<T> => new Set(adapter === undefined ? [] : [adapter])
  await end({ store: set(adapters.store), stream: set(adapters.stream), queue: set(adapters.queue) })
}

let ending: Promise<void> | undefined

/**
 * Ends everything that is in use, in the order that loses nothing: queues drain, wirings drain, then queues, streams and
 * stores close. That is the current adapters, every running wiring, and the adapters of these wirings.
 */
export function shutdown(): Promise<void> {
  const parts: Array<Partial<Adapters>> = [current, ...running as Set<any>]
  const set = <K extends keyof Adapters>(kind: K): Set<Adapters[K]> => new Set(parts.flatMap(part => part[kind] ?? []) as Array<Adapters[K]>)
  ending ??= end({ store: set('store'), stream: set('stream'), queue: set('queue') }).finally(() => ending = undefined)
  return ending
}
