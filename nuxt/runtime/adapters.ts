/** How each adapter is made from the options of a server. Nothing is opened: that happens on first use, or by `init`. */
import {
  FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, NventError, RedisStoreAdapter,
  RedisStreamAdapter,
} from 'nvent-native/native'
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'
import { inConfiguration } from '../../lib/options/adapters.js'
import type { ServerConfig } from './config.js'

export interface NativeAdapters {
  stores: Record<string, () => StoreAdapter>
  streams: Record<string, () => StreamAdapter>
  queues: Record<string, () => QueueAdapter>
}

export function nativeAdapters({ store, stream, queue }: ServerConfig): NativeAdapters {
  return {
    stores: {
      memory: () => new MemoryStoreAdapter(store.memory),
      file: () => named('nvent.store.file', store.file, options => new FileStoreAdapter(options)),
      redis: () => named('nvent.store', store.redis, options => new RedisStoreAdapter(options)),
    },
    streams: {
      memory: () => named('nvent.stream', stream.memory, options => new MemoryStreamAdapter(options)),
      redis: () => named('nvent.stream', stream.redis, options => new RedisStreamAdapter(options)),
    },
    queues: {
      memory: () => named('nvent.queue', queue.memory, options => new MemoryQueueAdapter(options)),
      file: () => named('nvent.queue', queue.file, options => new FileQueueAdapter(options)),
    },
  }
}

/** Returns the adapters that keep nothing, for routes that are rendered during the build. */
export function memoryAdapters() {
  return { store: new MemoryStoreAdapter(), stream: new MemoryStreamAdapter(), queue: new MemoryQueueAdapter() }
}

/** Makes an adapter; what is wrong is named by its path in nuxt.config. */
function named<T, O extends object>(section: string, options: O, make: (options: O) => T): T {
  try {
    return make(options)
  }
  catch (error) {
    if (!(error instanceof NventError)) throw error
    throw new NventError(error.code, inConfiguration(section, options, error.message), { retryable: error.retryable, cause: error })
  }
}
