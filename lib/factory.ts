import { didYouMean, object, options } from './check'
import { invalid, NventError } from './errors'
import { FileQueueAdapter, MemoryQueueAdapter } from './queue'
import { checkConnection, RedisStoreAdapter, RedisStreamAdapter } from './redis'
import { FileStoreAdapter, MemoryStoreAdapter } from './store'
import { MemoryStreamAdapter } from './stream'
import type { Adapters, AdaptersConfig, QueueAdapter, RedisConnection, StoreAdapter, StreamAdapter } from './types'

const key = Symbol.for('nvent-native.adapters')
const shared = globalThis as { [key]?: Partial<Adapters> }
/** The current adapters of this JavaScript environment, which all loaded copies of the package share. */
const current = shared[key] ??= {}

const CONFIG = { store: 'object', stream: 'object', queue: 'object', connections: 'object' } as const

type Kinds = Parameters<typeof options>[2]

/** Checks the name of an adapter against the known ones. */
function adapterName(what: string, given: unknown, known: string[], fallback: string): string {
  const name = given ?? fallback
  if (typeof name !== 'string' || !known.includes(name)) {
    throw invalid(`${what}.adapter: ${JSON.stringify(given)} is not known${didYouMean(String(name), known)}`)
  }
  return name
}

/** Creates and opens adapters and makes them current. The queue may also be an object of the application, such as one on BullMQ. */
export async function createAdapters(
  config: Omit<AdaptersConfig, 'queue'> & { queue?: AdaptersConfig['queue'] | QueueAdapter } = {},
): Promise<Adapters> {
  const { store, stream, queue, connections } = options('config', config, CONFIG)
  const { redis, file } = options('config.connections', connections, { redis: 'object', file: 'object' })
  checkConnection('config.connections.redis', redis)
  const base: string | undefined = options('config.connections.file', file, { dataDir: 'string' })['dataDir']
  const section = (name: string, value: unknown, known: Kinds): Record<string, any> =>
    options(`config.${name}`, value, { adapter: 'string', prefix: 'string', file: 'object', redis: 'object', ...known })
  const dir = (own: { dataDir?: string } | undefined, name: string): string =>
    own?.dataDir ?? (base === undefined ? `.data/${name}` : `${base}/${name}`)

  const storeConfig = section('store', store, {})
  const storeFile = options('config.store.file', storeConfig['file'], { dataDir: 'string', durability: 'string', retention: 'object' })
  checkConnection('config.store.redis', storeConfig['redis'])
  const streamConfig = section('stream', stream, { retain: 'object' })
  checkConnection('config.stream.redis', streamConfig['redis'])
  const ownQueue = typeof queue?.enqueue === 'function' ? queue as QueueAdapter : undefined
  const queueConfig = ownQueue ? {} : section('queue', queue, { defaultJobOptions: 'object' })
  const queueFile = options('config.queue.file', queueConfig['file'], { dataDir: 'string', durability: 'string' })

  const onRedis = (own: Record<string, any>): { connection?: RedisConnection, prefix?: string } =>
    ({ connection: own['redis'] ?? redis, prefix: own['prefix'] })
  const makeStore = {
    memory: () => new MemoryStoreAdapter(),
    file: () => new FileStoreAdapter({ ...storeFile, dataDir: dir(storeFile, 'store') }),
    redis: () => new RedisStoreAdapter(onRedis(storeConfig)),
  }
  const makeStream = {
    memory: () => {
      if (streamConfig['retain'] !== undefined) throw invalid('config.stream.retain: is an option of the adapter "redis"; for a memory stream pass it to MemoryStreamAdapter')
      return new MemoryStreamAdapter()
    },
    redis: () => new RedisStreamAdapter({ ...onRedis(streamConfig), retain: streamConfig['retain'] }),
  }
  const defaults = queueConfig['defaultJobOptions'] === undefined ? {} : { defaultJobOptions: queueConfig['defaultJobOptions'] }
  if (queueConfig['adapter'] === 'redis') {
    throw invalid('config.queue.adapter: there is no native queue on Redis, BullMQ is one: in Nuxt add nvent\'s module @nvent-addon/adapter-queue-redis, elsewhere pass an object with the methods of a QueueAdapter to createAdapters({ queue }) or setAdapters({ queue })')
  }
  const makeQueue = {
    memory: () => new MemoryQueueAdapter(defaults),
    file: () => new FileQueueAdapter({ ...defaults, ...queueFile, dataDir: dir(queueFile, 'queue') }),
  }
  const chosen = {
    store: adapterName('config.store', storeConfig['adapter'], Object.keys(makeStore), 'file') as keyof typeof makeStore,
    stream: adapterName('config.stream', streamConfig['adapter'], Object.keys(makeStream), 'memory') as keyof typeof makeStream,
    queue: adapterName('config.queue', queueConfig['adapter'], Object.keys(makeQueue), 'file') as keyof typeof makeQueue,
  }
  const adapters: Adapters = { store: makeStore[chosen.store](), stream: makeStream[chosen.stream](), queue: ownQueue ?? makeQueue[chosen.queue]() }
  try {
    await Promise.all([adapters.store.init(), adapters.stream.init(), adapters.queue.init()])
  }
  catch (error) {
    // Closes those that were opened.
    await shutdownAdapters(adapters).catch(() => {})
    throw error
  }
  setAdapters(adapters)
  return adapters
}

const METHODS = { store: 'stream', stream: 'publish', queue: 'enqueue' } as const

export function setAdapters(adapters: Partial<Adapters>): void {
  const given = options('adapters', adapters, { store: 'object', stream: 'object', queue: 'object' })
  for (const [kind, adapter] of Object.entries(given)) {
    if (adapter === undefined) continue
    const method = METHODS[kind as keyof Adapters]
    const has = object(`adapters.${kind}`, adapter)[method] ?? (kind === 'store' ? adapter.append : undefined)
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

/** Closes adapters, by default the current ones: the queue first, because its jobs use the others. */
export async function shutdownAdapters(adapters: Partial<Adapters> = { ...current }): Promise<void> {
  for (const kind of ['queue', 'stream', 'store'] as const) {
    if (current[kind] !== undefined && current[kind] === adapters[kind]) delete current[kind]
  }
  const failures: unknown[] = []
  // A foreign adapter may have nothing to close.
  for (const end of [() => adapters.queue?.close?.(), () => adapters.stream?.shutdown?.(), () => adapters.store?.close?.()]) {
    try {
      await end()
    }
    catch (error) {
      failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
}
