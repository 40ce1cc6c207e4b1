import type { EventBus } from './bus'
import type { AppendOptions, EventIterateOptions, EventReadOptions, EventRecord, EventSubscription, NewEvent } from './events'
import type { ConsumeOptions, Consumer, ConsumerContext, Feed, ListedConsumer, ParkedConsumerEvent } from './feed'
import type { RedisConnection } from './redis'

/** One entry of an index. What is returned is the caller's own copy. */
export interface IndexEntry {
  /** Unique within its index. */
  id: string
  /** What the index is sorted by, highest first. */
  score: number
  /** The entry's object. `version` in it is 0 after `add` and one more after every update and increment. */
  metadata?: any
}

/** Options of reading an index. */
export interface IndexReadOptions {
  /**
   * Begins after this entry: the last one of the page before, of which `score` and `id` count. It need not be there any more. Unlike
   * an offset, such pages do not shift while others add, update and delete.
   */
  cursor?: Pick<IndexEntry, 'id' | 'score'>
  /** Entries to leave out at the beginning, after the cursor and the filter. Default 0. */
  offset?: number
  /** At most so many entries. Default 50. */
  limit?: number
  /** Equality per field of the metadata, dotted paths too; an array means "one of". */
  filter?: Record<string, any>
}

/** Options of an update. */
export interface IndexUpdateOptions {
  /** Update only where `metadata.version` is this. */
  expectedVersion?: number
}

/** Options of listing documents. */
export interface ListOptions {
  /**
   * Begins after this document: the last one of the page before, of which `id` counts, and with `sortBy` that field of `doc`. It
   * need not be there any more. Unlike an offset, such pages do not shift while others save and delete.
   */
  cursor?: { id: string, doc?: Record<string, any> }
  /** Equality per field of the document, dotted paths too; an array means "one of". */
  filter?: Record<string, any>
  /** At most so many documents. Absent: all. */
  limit?: number
  /** Documents to leave out at the beginning, after filter and sort. Default 0. */
  offset?: number
  /** Field, or dotted path, to sort by. Absent: by id. */
  sortBy?: string
  /** Direction of the sort. Default `asc`. */
  order?: 'asc' | 'desc'
}

/** What an adapter says about its backend. */
export interface Health<Backend extends string = string> {
  /** Whether calls are answered now. */
  ok: boolean
  /** Which backend it is. */
  backend: Backend
  /** What is wrong, or worth knowing, in words. */
  detail?: string
}

/** Counters of a store since it was made. Backends add their own. */
export interface StoreStats {
  /** Events appended. */
  appends: number
  /** Reading calls. */
  reads: number
  /** Writing calls other than appends. */
  writes: number
  /** Calls that failed in the backend. */
  errors: number
  /** Counters of the backend. */
  [counter: string]: number
}

/** Events by subject: what is appended stays, in order. nvent 0.5. */
export interface EventStreams {
  /** Stores an event at the end of a subject and announces it on the store's bus. Returns the record as it was stored. */
  append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>>
  /** Returns the events of a subject, by default all of them, in order of append; `[]` where it has none. */
  read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]>
  /**
   * Calls `onEvent` with what is appended from now on, in order. `subject` may be a glob. Sees appends of this process
   * on memory and file; of every process on Redis, where it goes on after an outage where it was. On Redis, what nvent's own
   * adapters append comes within 5 s plus a second for each 2,000 keys of the database, or with the next event of its
   * subject.
   */
  subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription>
  /**
   * Iterates over the events of one subject, from now on or after an id, and waits for more: `for await (const event of
   * store.stream.iterate(subject, { signal }))`. They are read from the store in pages, so that a slow loop loses nothing but what
   * retention or trimming removes before it is read. Ends when the loop is left or the store is closed. Keeps no process alive.
   */
  iterate(subject: string, opts?: EventIterateOptions): AsyncIterableIterator<EventRecord, void, void> & AsyncDisposable
  /** Removes a subject with all its events. Returns whether there was anything. */
  delete(subject: string): Promise<boolean>
}

/** Values by key. nvent 0.5. */
export interface KeyValues {
  /** Returns the value, or null where there is no live one: 0, `''`, false and a stored null are values. */
  get<T = any>(key: string): Promise<T | null>
  /** Stores any JSON value. `ttl` in seconds, fractions allowed; absent: for good. */
  set<T = any>(key: string, value: T, ttl?: number): Promise<void>
  /** Removes a key. One that is not there is fine. */
  delete(key: string): Promise<void>
  /**
   * Removes every key that matches a Redis glob, and nothing but kv values. Returns the number removed. On Redis, a pattern
   * without a literal beginning, such as `*`, removes only keys that this package wrote: other programs may use the database too.
   */
  clear(pattern: string): Promise<number>
  /** Adds `by` (default 1) atomically, a missing value counting as 0, and keeps the ttl. Returns the new value. Rejects with NVENT_TYPE where the value is no number. */
  increment(key: string, by?: number): Promise<number>
}

/**
 * Sorted lists of objects, such as the runs of a flow. nvent 0.5. On Redis an entry has at most 10,000 fields, and the key of
 * an index contains no `:meta:`, which separates it from its entries there; both are refused with NVENT_INVALID.
 */
export interface Indexes {
  /** Adds an entry, or replaces its score and metadata. Dotted keys in metadata are expanded; undefined leaves nothing. */
  add(key: string, id: string, score: number, metadata?: Record<string, any>): Promise<void>
  /** Returns the entry, or null. */
  get(key: string, id: string): Promise<IndexEntry | null>
  /** Returns entries, highest score first, ties by id ascending. */
  read(key: string, opts?: IndexReadOptions): Promise<IndexEntry[]>
  /** Returns the number of entries, or of those that the filter matches. */
  count(key: string, opts?: { filter?: Record<string, any> }): Promise<number>
  /**
   * Merges deeply and atomically. null and undefined delete, arrays are replaced; dotted keys reject with NVENT_INVALID.
   * Returns false where there is no such entry, or `expectedVersion` differs.
   */
  update(key: string, id: string, metadata: Record<string, any>, opts?: IndexUpdateOptions): Promise<boolean>
  /** Merges as `update` does, also while others update the entry. Rejects with NVENT_NOT_FOUND where it is missing. `maxRetries` is accepted and not needed. */
  updateWithRetry(key: string, id: string, metadata: Record<string, any>, maxRetries?: number): Promise<void>
  /** Adds `by` (default 1) to a field, or a dotted path, atomically. Returns the new value. A missing entry rejects with NVENT_NOT_FOUND, "Entry not found" in the message. */
  increment(key: string, id: string, field: string, by?: number): Promise<number>
  /** Removes an entry. Returns whether it was there. */
  delete(key: string, id: string): Promise<boolean>
}

/** A page of {@link StoreAdapter.subjects}. */
export interface SubjectPage {
  /** May be empty although more pages follow. */
  subjects: string[]
  /** For the next page. null: this is the last one. */
  cursor: string | null
}

/**
 * Pure storage: it knows no stream. After an append it announces the record on its bus. Calls on one adapter take
 * effect in the order in which they were made; what is returned is the caller's own copy.
 */
export interface StoreAdapter {
  /** Opens the store. Idempotent; every other method opens it on first use as well. */
  init(): Promise<void>
  /** Closes the store. Resolves when no lock, connection, task or callback is left. Idempotent; later calls reject with NVENT_CLOSED. */
  close(): Promise<void>
  /** Asks the backend. Does not reject because the backend is down. */
  health(): Promise<Health<'memory' | 'file' | 'redis'>>
  /** Returns its counters. */
  stats(): StoreStats

  /** Events by subject. nvent 0.5. */
  readonly stream: EventStreams
  /** Values by key. nvent 0.5. */
  readonly kv: KeyValues
  /** Sorted indexes. nvent 0.5. */
  readonly index: Indexes

  /**
   * Returns a page of the subjects that have events and that a glob (default `*`) matches. `cursor` is that of the page before;
   * null: it was the last page. By name in memory and on file; on Redis in no order, and a subject may come twice.
   */
  subjects(pattern?: string, cursor?: string | null): Promise<SubjectPage>
  /** All events of the store, in the order in which it took them. */
  readonly feed: Feed
  /**
   * Starts a durable consumer: `handler` is called with every event of the feed that the globs match. Its cursor is kept in the
   * store under `name`, so it goes on where it was after a restart, also after kill -9. At least once: an event is delivered
   * again unless its handler had resolved and the cursor was stored (within 200 ms). Of one name one consumer is at work at a
   * time, in all processes that share the store; others stand by. On Redis another takes over within 15 s when it is gone.
   *
   * Where retention or trimming removed events before the consumer had them, the handler is called with an event of the type
   * `stream.gap`, whose data is `{ reason: 'trimmed', missed }`.
   */
  consume(name: string, handler: (event: EventRecord, context: ConsumerContext) => unknown, opts?: ConsumeOptions): Promise<Consumer>
  /** Returns all consumers of the store, whether or not they are at work. */
  consumers(): Promise<ListedConsumer[]>
  /** Returns the parked events of a consumer, whether or not it is at work, in the order of the feed. Default limit 100. */
  parked(consumer: string, opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]>
  /**
   * Requests that parked events are delivered again: these, or all. Resolves with their number when the request is stored. The
   * consumer at work, in whichever process, delivers them (on Redis within about 3 s); if there is none, the next one that
   * starts. Rejects with `NVENT_NOT_FOUND` if there is no such consumer. {@link Consumer.replay} also waits for the handlers.
   */
  replay(consumer: string, positions?: string[]): Promise<number>
  /** Removes a consumer and what it parked. Resolves with whether there was one. */
  deleteConsumer(name: string): Promise<boolean>
  /** Calls {@link StoreAdapter.close}. */
  [Symbol.asyncDispose](): Promise<void>

  /** Calls {@link EventStreams.append}. nvent 0.4.1. */
  append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>>
  /** Calls {@link EventStreams.read}. nvent 0.4.1. */
  read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]>
  /** Calls {@link EventStreams.subscribe}. nvent 0.4.1. */
  subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription>
  /** Stores a document, replacing one of the same id. nvent 0.4.1. */
  save(collection: string, id: string, doc: Record<string, any>): Promise<void>
  /** Returns the document, or null. nvent 0.4.1. */
  get(collection: string, id: string): Promise<Record<string, any> | null>
  /** Returns the documents of a collection, by id unless `sortBy` is given. nvent 0.4.1. */
  list(collection: string, opts?: ListOptions): Promise<Array<{ id: string, doc: any }>>
  /** Removes a document. One that is not there is fine. nvent 0.4.1. */
  delete(collection: string, id: string): Promise<void>
  /** Calls {@link Indexes.add}. nvent 0.4.1. */
  indexAdd: Indexes['add']
  /** Calls {@link Indexes.get}. nvent 0.4.1. */
  indexGet: Indexes['get']
  /** Calls {@link Indexes.read}. nvent 0.4.1. */
  indexRead: Indexes['read']
  /** Calls {@link Indexes.update}. nvent 0.4.1. */
  indexUpdate: Indexes['update']
  /** Calls {@link Indexes.updateWithRetry}. nvent 0.4.1. */
  indexUpdateWithRetry: Indexes['updateWithRetry']
  /** Calls {@link Indexes.increment}. nvent 0.4.1. */
  indexIncrement: Indexes['increment']
}

/** What every store takes. */
export interface StoreOptions {
  /** Where appends are announced. Absent: `getEventBus()`. null: nowhere. */
  bus?: EventBus | null
}

/** What an acknowledged write survives. `os`: the process being killed. `disk`: power loss too. */
export type Durability = 'os' | 'disk'

/** What a file store keeps. What is older, or more, is removed in the background. */
export interface Retention {
  /** Remove events older than so many milliseconds. Absent: never. */
  maxAgeMs?: number
  /** Keep only the newest events of each subject. Absent: all. */
  maxEventsPerSubject?: number
}

/** Options of {@link FileStoreAdapter}. */
export interface FileStoreOptions extends StoreOptions {
  /** The folder of the store, made where it is missing. Relative to the working directory. One process at a time; the others get NVENT_LOCKED. */
  dataDir: string
  /** What an acknowledged write survives. Default `os`; `disk` syncs, once for all writes that wait. */
  durability?: Durability
  /**
   * Reads the store beside the process that has it open, or without one: the lock is not taken, nothing is written, older tables
   * are not brought up to date. What writes, and `consume` and `subscribe`, reject with NVENT_INVALID. Default false.
   */
  readOnly?: boolean
  /** What is kept. Default: everything. All adapters on one directory must have the same. */
  retention?: Retention
}

/** A store in a folder, for one process. */
export interface FileStore extends StoreAdapter {
  /** Writes a copy of the whole store, as it is at one moment, to a new file at `path`. */
  backup(path: string): Promise<void>
  /** Reads everything and returns what is wrong with it. */
  verify(): Promise<{ ok: boolean, problems: string[] }>
}

/** Options of {@link RedisStoreAdapter}. */
export interface RedisStoreOptions extends StoreOptions {
  /** Default: `127.0.0.1:6379`. */
  connection?: RedisConnection
  /**
   * What the store's own keys begin with; subjects, kv keys and index keys are used as they are given, and must not begin
   * with `{prefix}:~`. Default `nvent`.
   */
  prefix?: string
  /** How long the event streams get. */
  streams?: {
    /**
     * Trim on append. Default `{ maxLen: 10000, approx: true }`, as nvent does. A run that is not over keeps all its events,
     * up to ten times `maxLen`; beyond, a warning NVENT_RUN_TRIMMED.
     */
    trim?: {
      /** Events that a subject keeps. */
      maxLen?: number
      /** Let Redis keep somewhat more, which is cheaper. */
      approx?: boolean
    }
  }
}
