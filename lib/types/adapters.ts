import type { FileQueueOptions, JobOptions, QueueAdapter } from './queue'
import type { RedisConnection } from './redis'
import type { FileStoreOptions, StoreAdapter } from './store'
import type { RedisStreamOptions, StreamAdapter } from './stream'

/** The `nvent` section of nuxt.config. Adapters are independent of each other. An unknown name or option rejects with NVENT_INVALID and says which are known. */
export interface AdaptersConfig<
  Store extends 'memory' | 'file' | 'redis' = 'memory' | 'file' | 'redis',
  Stream extends 'memory' | 'redis' = 'memory' | 'redis',
  Queue extends 'memory' | 'file' = 'memory' | 'file',
> {
  /** The store. Default: files in `.data/store`. */
  store?: {
    /** Which backend. Default `file`. */
    adapter?: Store
    /** {@link RedisStoreOptions.prefix}. */
    prefix?: string
    /** Options of the file store. */
    file?: Partial<Pick<FileStoreOptions, 'dataDir' | 'durability' | 'retention'>>
    /** Where Redis is. Default: `connections.redis`. */
    redis?: RedisConnection
  }
  /** The stream. Default: memory. */
  stream?: {
    /** Which backend. Default `memory`. */
    adapter?: Stream
    /** {@link RedisStreamOptions.prefix}. */
    prefix?: string
    /** Where Redis is. Default: `connections.redis`. */
    redis?: RedisConnection
    /** {@link RedisStreamOptions.retain}. */
    retain?: RedisStreamOptions['retain']
  }
  /** The queue. Default: files in `.data/queue`. */
  queue?: {
    /** Which backend. Default `file`. */
    adapter?: Queue
    /** Options of the file queue. */
    file?: Partial<Pick<FileQueueOptions, 'dataDir'>>
    /** For jobs that do not say otherwise. */
    defaultJobOptions?: JobOptions
  }
  /** Shared by the adapters. */
  connections?: {
    /** Where Redis is. */
    redis?: RedisConnection
    /** Where files are. */
    file?: {
      /** The folder that holds `store` and `queue`. Default `.data`. */
      dataDir?: string
    }
  }
}

/** A configuration, or an object of the application for an adapter. */
export interface AdaptersInput extends Pick<AdaptersConfig, 'connections'> {
  /** The store. */
  store?: AdaptersConfig['store'] | StoreAdapter
  /** The stream. */
  stream?: AdaptersConfig['stream'] | StreamAdapter
  /** The queue. */
  queue?: AdaptersConfig['queue'] | QueueAdapter
}

/** What `createAdapters` opens. */
export interface Adapters<Store extends StoreAdapter = StoreAdapter, Stream extends StreamAdapter = StreamAdapter, Queue extends QueueAdapter = QueueAdapter> {
  /** The store. */
  store: Store
  /** The stream. */
  stream: Stream
  /** The queue. */
  queue: Queue
}
