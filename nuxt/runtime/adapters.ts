/** How each adapter is made from the options of a server. Nothing is opened: that happens on first use, or by `init`. */
import {
  FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, NventError, RedisStoreAdapter,
  RedisStreamAdapter,
} from 'nvent-native/native'
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'
import type { ServerConfig } from './config.js'

export interface NativeAdapters {
  stores: Record<string, () => StoreAdapter>
  streams: Record<string, () => StreamAdapter>
  queues: Record<string, () => QueueAdapter>
}

export function nativeAdapters({ store, stream, queue }: ServerConfig): NativeAdapters {
  const { defaultJobOptions } = queue
  return {
    stores: {
      memory: () => new MemoryStoreAdapter(),
      file: () => named('nvent.store.file', () => new FileStoreAdapter(defined(store.file))),
      redis: () => named('nvent.store', () => new RedisStoreAdapter(defined({
        connection: store.redis, prefix: store.prefix, streams: store.trim && { trim: store.trim },
      }))),
    },
    streams: {
      memory: () => named('nvent.stream', () => new MemoryStreamAdapter({ retain: stream.retain && defined({ maxEvents: stream.retain.maxLen }) })),
      redis: () => named('nvent.stream', () => new RedisStreamAdapter(defined({ connection: stream.redis, prefix: stream.prefix, retain: stream.retain }))),
    },
    queues: {
      memory: () => named('nvent.queue', () => new MemoryQueueAdapter(defined({ defaultJobOptions }))),
      file: () => named('nvent.queue', () => new FileQueueAdapter(defined({ ...queue.file, defaultJobOptions }))),
    },
  }
}

/** Returns the adapters that keep nothing, for routes that are rendered during the build. */
export function memoryAdapters() {
  return { store: new MemoryStoreAdapter(), stream: new MemoryStreamAdapter(), queue: new MemoryQueueAdapter() }
}

/** Makes an error say which section the option is in. */
function named<T>(section: string, make: () => T): T {
  try {
    return make()
  }
  catch (error) {
    if (!(error instanceof NventError)) throw error
    throw new NventError(error.code, `${section}: ${error.message.replace(/^options\./, '')}`, { retryable: error.retryable, cause: error })
  }
}

const defined = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
