/** The configuration of adapters, as `createAdapters` and nuxt.config take it, and what constructors are given from it. */
import type { Adapters, AdaptersConfig } from '../types/adapters'
import type { FileQueueOptions, QueueOptions } from '../types/queue'
import type { RedisConnection } from '../types/redis'
import type { FileStoreOptions, RedisStoreOptions, StoreOptions } from '../types/store'
import type { MemoryStreamOptions, RedisStreamOptions } from '../types/stream'
import { fileQueueOptions, queueOptions } from './queue.js'
import { group, object, oneOf, text } from './schema.js'
import type { Schema } from './schema.js'
import { fileStoreOptions, redisConnection, redisStoreOptions } from './store.js'
import { redisStreamOptions, retainConfig } from './stream.js'

const dataDir = text({ filled: true, backends: ['file'] })
const olderName = group(redisConnection, { alias: true, backends: ['redis'] })

const { bus: _bus, readOnly: _readOnly, ...storeFile } = fileStoreOptions
const { bus: _other, connection: _connection, ...storeRedis } = redisStoreOptions
const { connection: _another, ...streamRedis } = redisStreamOptions
const { defaultJobOptions: _jobs, ...queueFile } = fileQueueOptions

const NO_REDIS_QUEUE = 'there is no native queue on Redis, BullMQ is one: in Nuxt add nvent\'s module @nvent-addon/adapter-queue-redis, elsewhere pass an object with the methods of a QueueAdapter to createAdapters({ queue }) or setAdapters({ queue })'

export const adaptersOptions: Schema<AdaptersConfig> = {
  store: {
    adapter: oneOf(['memory', 'file', 'redis'], { default: 'file' }),
    ...storeRedis,
    file: { ...storeFile, dataDir },
    redis: redisConnection,
    connection: olderName,
  },
  stream: { adapter: oneOf(['memory', 'redis'], { default: 'memory' }), ...streamRedis, retain: retainConfig, redis: redisConnection, connection: olderName },
  queue: {
    adapter: oneOf(['memory', 'file'], { default: 'file', hints: { redis: NO_REDIS_QUEUE } }),
    ...queueOptions,
    file: { ...queueFile, dataDir },
  },
  connections: { redis: redisConnection, file: { dataDir } },
}

/** `setAdapters`. */
export const currentAdapters: Schema<Partial<Adapters>> = { store: object<any>(), stream: object<any>(), queue: object<any>() }

/** Which adapters are to be made, and the options of every backend. */
export interface AdapterOptions {
  store: { adapter: 'memory' | 'file' | 'redis', memory: StoreOptions, file: FileStoreOptions, redis: RedisStoreOptions }
  stream: { adapter: 'memory' | 'redis', memory: MemoryStreamOptions, redis: RedisStreamOptions }
  queue: { adapter: 'memory' | 'file', memory: QueueOptions, file: FileQueueOptions }
}

/** Returns what the constructors are given from a configuration that was checked. */
export function adapterOptions({ store, stream, queue, connections }: AdaptersConfig): AdapterOptions {
  const base = connections?.file?.dataDir ?? '.data'
  const { adapter: storeAdapter = 'file', file: storeFile, redis: storeOwn, connection: storeOlder, ...storeRest } = store ?? {}
  const { adapter: streamAdapter = 'memory', redis: streamOwn, connection: streamOlder, ...streamRest } = stream ?? {}
  const { adapter: queueAdapter = 'file', file: queueFile, ...queueRest } = queue ?? {}
  const { retain } = streamRest
  return {
    store: {
      adapter: storeAdapter,
      memory: {},
      file: { ...storeFile, dataDir: storeFile?.dataDir ?? `${base}/store` },
      redis: { ...storeRest, connection: mergeConnections(connections?.redis, { ...storeOlder, ...storeOwn }) },
    },
    stream: {
      adapter: streamAdapter,
      memory: retain ? { retain: retain.maxLen === undefined ? {} : { maxEvents: retain.maxLen } } : {},
      // Without topics it is refused by the constructor.
      redis: { ...streamRest as Omit<RedisStreamOptions, 'connection'>, connection: mergeConnections(connections?.redis, { ...streamOlder, ...streamOwn }) },
    },
    queue: { adapter: queueAdapter, memory: queueRest, file: { ...queueRest, ...queueFile, dataDir: queueFile?.dataDir ?? `${base}/queue` } },
  }
}

/** Returns the message of a constructor as it reads in a configuration, where `connection` is the `redis` of a section. */
export function inConfiguration(section: string, options: object, message: string): string {
  const renamed = message.replace(/\bconnection(?=[.:])/g, `${section}.redis`)
  const isOption = Object.hasOwn(options, /^\w*/.exec(renamed)![0])
  return isOption ? `${section}.${renamed}` : renamed
}

/** Fills in, field by field, what an adapter's own connection leaves open. */
export function mergeConnections(shared: RedisConnection = {}, given: RedisConnection = {}): RedisConnection {
  const own: RedisConnection = defined(given)
  if (Object.keys(own).length === 0) return shared
  // A url says several fields at once: those that the adapter says itself win over them.
  const { url, ...fields } = { ...fromUrl(shared), ...own }
  if (url === undefined) return fields
  const inUrl = Object.keys(fromUrl({ url }))
  return { url, ...Object.fromEntries(Object.entries(fields).filter(([key]) => key in own || ![...inUrl, 'host', 'port'].includes(key))) }
}

/** Returns the fields of a connection, with those of its url; a url that is none stays. */
function fromUrl({ url, ...fields }: RedisConnection): RedisConnection {
  if (!url) return fields
  try {
    const { protocol, hostname, port, username, password, pathname } = new URL(url)
    return {
      ...fields,
      ...defined({
        host: hostname.replace(/^\[|\]$/g, '') || undefined,
        port: port ? Number(port) : undefined,
        username: decodeURIComponent(username) || undefined,
        password: decodeURIComponent(password) || undefined,
        db: pathname.length > 1 ? Number(pathname.slice(1)) : undefined,
        tls: protocol === 'rediss:' ? fields.tls ?? true : undefined,
      }),
    }
  }
  catch {
    return { url, ...fields }
  }
}

const defined = <T extends object>(value: T): Partial<T> =>
  Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as Partial<T>
