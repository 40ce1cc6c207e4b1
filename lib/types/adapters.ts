import type { FileQueueOptions, QueueAdapter, QueueOptions } from './queue'
import type { RedisConnection } from './redis'
import type { FileStoreOptions, RedisStoreOptions, StoreAdapter } from './store'
import type { RedisStreamOptions, StreamAdapter } from './stream'

/** The store in a configuration. Options of backends other than the chosen one have no effect. */
export interface StoreConfig<Adapter extends 'memory' | 'file' | 'redis' = 'memory' | 'file' | 'redis'> extends Omit<RedisStoreOptions, 'bus' | 'connection'> {
  /** Which backend. Default `file`. */
  adapter?: Adapter
  /** Options of the file store. `dataDir`: default `store` in `connections.file.dataDir`. */
  file?: Partial<Omit<FileStoreOptions, 'bus' | 'readOnly'>>
  /** Where Redis is. What it leaves open is taken from `connections.redis`. */
  redis?: RedisConnection
  /** Older name of `redis`. */
  connection?: RedisConnection
}

/** The stream in a configuration. */
export interface StreamConfig<Adapter extends 'memory' | 'redis' = 'memory' | 'redis'> extends Omit<RedisStreamOptions, 'connection' | 'retain'> {
  /** Which backend. Default `memory`. */
  adapter?: Adapter
  /** Where Redis is. What it leaves open is taken from `connections.redis`. */
  redis?: RedisConnection
  /** Older name of `redis`. */
  connection?: RedisConnection
  /** Keeps what was published: {@link RedisStreamOptions.retain}. On Redis `topics` is needed; a memory stream keeps `maxLen` events of every topic. */
  retain?: Partial<NonNullable<RedisStreamOptions['retain']>>
}

/** The queue in a configuration. */
export interface QueueConfig<Adapter extends 'memory' | 'file' = 'memory' | 'file'> extends QueueOptions {
  /** Which backend. Default `file`. */
  adapter?: Adapter
  /** Options of the file queue. `dataDir`: default `queue` in `connections.file.dataDir`. */
  file?: Partial<Omit<FileQueueOptions, 'defaultJobOptions'>>
}

/** The `nvent` section of nuxt.config. Adapters are independent of each other. An unknown name or option rejects with NVENT_INVALID and says which are known. */
export interface AdaptersConfig<
  Store extends 'memory' | 'file' | 'redis' = 'memory' | 'file' | 'redis',
  Stream extends 'memory' | 'redis' = 'memory' | 'redis',
  Queue extends 'memory' | 'file' = 'memory' | 'file',
> {
  /** The store. Default: files in `.data/store`. */
  store?: StoreConfig<Store>
  /** The stream. Default: memory. */
  stream?: StreamConfig<Stream>
  /** The queue. Default: files in `.data/queue`. */
  queue?: QueueConfig<Queue>
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
