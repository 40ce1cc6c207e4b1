// Generated from lib by `npm run types`.

/**
 * The types of an application's events and what their `data` is:
 *
 * ```ts
 * declare module 'nvent-native' {
 *   interface NventEvents { 'order.paid': { amount: number } }
 * }
 * ```
 *
 * The data of a type that is not listed is `any`.
 */
interface NventEvents {
}
/** The `data` of events of a type: as {@link NventEvents} has it, or `any`. */
type EventData<Type extends string = string> = Type extends keyof NventEvents ? NventEvents[Type] : any;
/** `data`, which is there where the type is one of {@link NventEvents}. */
type WithData<Type extends string> = Type extends keyof NventEvents ? {
    /** The payload. */
    data: NventEvents[Type];
} : {
    /** The payload: any JSON value. */
    data?: any;
};
/** Fields of an event that flows and channels read. Further fields are kept as they came. */
interface EventFields<Type extends string = string> {
    /** What happened: `flow.start`, `step.completed`, `emit`, or a type of your own. */
    type: Type;
    /** The run of a flow that the event belongs to. */
    runId?: string;
    /** The name of that flow. */
    flowName?: string;
    /** The step that the event is about. */
    stepName?: string;
    /** One attempt of a step: `<run>__<step>__attempt-<n>`. */
    stepId?: string;
    /** Which attempt of the step, counted from 1. */
    attempt?: number;
    /** W3C trace context of its append, where the application traces. The spans of what the event leads to continue it. */
    traceparent?: string;
    /** Any further field, kept as it came. */
    [field: string]: any;
}
/** What a store adds to an event. */
interface StoredFields {
    /** `<ms>-<seq>`: strictly increasing within a subject on every backend, also across restarts and clock steps. */
    id: string;
    /** When the store took it: Unix time in milliseconds. */
    ts: number;
}
/** A persisted event. `id` and `ts` are given by the store. Unknown extra fields are kept as they came. */
type EventRecord<Type extends string = string> = StoredFields & EventFields<Type> & WithData<Type>;
/** An event to append: an `id` or `ts` in it is replaced by the store's own. */
type NewEvent<Type extends string = string> = EventFields<Type> & WithData<Type>;
/** An event on a bus: with `id` and `ts` once it is stored, without them before. */
type BusEvent<Type extends string = string> = Partial<StoredFields> & EventFields<Type> & WithData<Type>;
/** Options of reading a subject. All given filters must hold. */
interface EventReadOptions {
    /** Only events of these types. Absent: every type. */
    types?: string[];
    /** Only events after this id, itself excluded. An id that is not in the subject is a valid position too. */
    after?: string;
    /** Only events before this id, itself excluded. */
    before?: string;
    /** Only events from this time on, in milliseconds, itself included. 0 is a time, not "unset". */
    from?: number;
    /** Only events up to this time, in milliseconds, itself included. */
    to?: number;
    /** At most so many events, counted after every filter. Absent: all. */
    limit?: number;
    /** `asc` (default): in order of append. `desc`: the newest first. */
    order?: 'asc' | 'desc';
}
/** Options of an append. */
interface AppendOptions {
    /** The id that the subject must end with, or null for "must be empty". Rejects with NVENT_CONFLICT where it does not. */
    expectedLastId?: string | null;
}
/** Options of a loop over the events of a subject. */
interface EventIterateOptions {
    /** Only events after this id. Absent: those that are appended from now on. `'0-0'`: all. */
    after?: string;
    /** Only events of these types. Absent: every type. */
    types?: string[];
    /** Ends the loop with an `AbortError` when it is aborted. */
    signal?: AbortSignal;
}
/** A handler that is called with what is appended to a subject. */
interface EventSubscription {
    /** Names the subscription within its adapter. */
    id: string;
    /** The subject, or the glob, that was subscribed to. */
    subject: string;
    /** Ends it. After it resolves the handler is not called again. Needs no `this`; calling it twice is fine. */
    unsubscribe: () => Promise<void>;
    /** Calls {@link EventSubscription.unsubscribe}. */
    [Symbol.asyncDispose]: () => Promise<void>;
}

/**
 * In-process. Handlers run synchronously, in order of registration, on the JavaScript thread; one that throws does not stop the others.
 * All of them get the same object: a handler that changes it changes it for the others.
 */
interface EventBus {
    /** Calls every handler of the type, of `'*'` and of the event's run. An event without id and ts is ingress: flow wiring persists it. */
    publish<const Type extends string>(event: BusEvent<Type>): void;
    /** Registers a handler for a type; `'*'` is every type. The returned function ends it. */
    onType<const Type extends string>(type: Type, handler: (event: Type extends keyof NventEvents ? BusEvent<Type> : any) => unknown): () => void;
    /** Registers a handler for the events of one run. The returned function ends it. */
    subscribeRunId(runId: string, handler: (event: any) => unknown): () => void;
}
/** Numbers of a bus of this package, since it was created. */
interface BusStats {
    /** Events published with `publish`, by this JavaScript environment. */
    published: number;
    /** Handlers that are registered. */
    handlers: number;
    /** Handlers that threw or rejected. The first is reported as a warning, further ones only here. */
    handlerErrors: number;
}
/** A bus of this package. */
interface NativeEventBus extends EventBus {
    /** Returns its numbers. */
    stats(): BusStats;
}

/** An event with its place in the feed. */
interface FeedEntry {
    /** Where it is. Positions are only compared by the store that gave them. */
    position: string;
    /** Where it was stored. */
    subject: string;
    /** The record. */
    event: EventRecord;
}
/** Options of reading the feed. */
interface FeedReadOptions {
    /** Only events after this position. Absent: from the beginning. */
    after?: string;
    /** At most so many. Default 1,000. A page ends earlier where it has 32 MB. An empty page: there is nothing more. */
    limit?: number;
    /** Globs of subjects. Absent: every subject. */
    subjects?: string | string[];
    /** Globs of types. Absent: every type. */
    types?: string | string[];
}
/** Options of a loop over the feed. */
interface FeedIterateOptions extends Omit<FeedReadOptions, 'limit'> {
    /** Ends the loop with an `AbortError` when it is aborted. */
    signal?: AbortSignal;
}
/** All events of a store in one order. */
interface Feed {
    /** Resolves with a page of events. Go on after the position of its last one. */
    read(opts?: FeedReadOptions): Promise<FeedEntry[]>;
    /**
     * Iterates over the feed, from its beginning or after a position, and waits for more. It is read in pages, so that a slow loop
     * loses nothing but what retention or trimming removes before it is read; {@link StoreAdapter.consume} reports that, and keeps
     * its place. Ends when the loop is left or the store is closed. Keeps no process alive.
     */
    iterate(opts?: FeedIterateOptions): AsyncIterableIterator<FeedEntry, void, void> & AsyncDisposable;
    /** Resolves with the newest position, or null where nothing was ever stored. */
    head(): Promise<string | null>;
}
/** Options of a durable consumer. */
interface ConsumeOptions {
    /** Globs of subjects; both these and `types` must match. Absent: every subject. */
    subjects?: string | string[];
    /** Globs of types. Absent: every type. */
    types?: string | string[];
    /** Where a consumer of a new name begins. Default 'now'. A known name always goes on after its cursor. */
    from?: 'beginning' | 'now' | {
        position: string;
    };
    /** Deliveries before an event is parked. Default 5. */
    attempts?: number;
    /** Pause before the next delivery, in ms. Default: exponential from 200 ms to 30 s. */
    backoff?: number | {
        type: 'fixed' | 'exponential';
        delay: number;
        maxDelay?: number;
    };
    /** Subjects handled at a time; events of one subject stay in order. Default 1: everything in the order of the feed. */
    concurrency?: number;
    /** Stops the consumer when it is aborted. */
    signal?: AbortSignal;
}
/** What the handler of a consumer is given beside the event. */
interface ConsumerContext {
    /** Where the event was stored. */
    subject: string;
    /** Where it is in the feed. */
    position: string;
    /** Which delivery this is, from 1. */
    attempt: number;
    /** Aborted when the consumer stops, or another process takes over. */
    signal: AbortSignal;
}
/** An event that a consumer has failed at too often. */
interface ParkedConsumerEvent extends FeedEntry {
    /** Deliveries so far. */
    attempts: number;
    /** The last error. */
    reason: string;
    /** When it was parked: Unix time in milliseconds. */
    parkedAt: number;
}
/** Counters of a consumer. */
interface ConsumerStats {
    /** Every event up to here was handled or parked. null: none yet. */
    position: string | null;
    /** Events stored after that position, whether or not its globs match them. */
    lag: number;
    /** Events handled by this process. */
    delivered: number;
    /** Deliveries that failed in this process. */
    failed: number;
    /** Its parked events. */
    parked: number;
    /** Whether it is at work in this process. Otherwise it stands by. */
    active: boolean;
}
/** A durable consumer, as `store.consume` returns it. */
interface Consumer {
    /** Its name. */
    readonly name: string;
    /** Returns its counters. */
    stats(): ConsumerStats;
    /** Returns the events that it has failed at too often, in the order of the feed. `limit`: default 100. */
    parked(opts?: {
        limit?: number;
        after?: string;
    }): Promise<ParkedConsumerEvent[]>;
    /** Delivers parked events again: these, or all. Resolves with their number when each was handled or is parked again. */
    replay(positions?: string[]): Promise<number>;
    /** Waits for the handler at work, stores the cursor and stops. */
    stop(): Promise<void>;
    /** Calls {@link Consumer.stop}. */
    [Symbol.asyncDispose](): Promise<void>;
}
/** A consumer in the list of a store. */
interface ListedConsumer {
    /** Its name. */
    name: string;
    /** Every event up to here was handled or parked. null: none yet. */
    position: string | null;
    /** Events stored after that position. */
    lag: number;
    /** Its parked events. */
    parked: number;
}

/** Where Redis is. */
interface RedisConnection {
    /** `redis://` or `rediss://` (TLS). Fields fill in what it leaves open; a contradiction is NVENT_INVALID. */
    url?: string;
    /** Default `127.0.0.1`. */
    host?: string;
    /** Default 6379. */
    port?: number;
    /** ACL user. Default, and if empty: Redis's default user. */
    username?: string;
    /** Never appears in an error or a log. An empty one is none. */
    password?: string;
    /** Database number. Default 0. */
    db?: number;
    /**
     * Whether to use TLS (default false), or its options: certificates and keys as PEM text or paths. Without `ca` the roots are
     * the system's (or those of SSL_CERT_FILE) and those of NODE_EXTRA_CA_CERTS. An untrusted certificate is not retried.
     */
    tls?: boolean | {
        /** The only roots to trust. */
        ca?: string | string[];
        /** The client's certificate. */
        cert?: string;
        /** Its key. */
        key?: string;
        /** The name that the server's certificate must have. Default: the host. */
        servername?: string;
        /** Verify the server's certificate. Default true. */
        rejectUnauthorized?: boolean;
    };
    /** Sentinels, instead of `url`, `host` and `port`. The primary is looked up for each connection. */
    sentinels?: Array<{
        /** Host name or address. */
        host: string;
        /** Default 26379. */
        port?: number;
    }>;
    /** The name of the primary that the sentinels watch. */
    name?: string;
    /** The password of the sentinels. */
    sentinelPassword?: string;
}

/** One entry of an index. What is returned is the caller's own copy. */
interface IndexEntry {
    /** Unique within its index. */
    id: string;
    /** What the index is sorted by, highest first. */
    score: number;
    /** The entry's object. `version` in it is 0 after `add` and one more after every update and increment. */
    metadata?: any;
}
/** Options of reading an index. */
interface IndexReadOptions {
    /**
     * Begins after this entry: the last one of the page before, of which `score` and `id` count. It need not be there any more. Unlike
     * an offset, such pages do not shift while others add, update and delete.
     */
    cursor?: Pick<IndexEntry, 'id' | 'score'>;
    /** Entries to leave out at the beginning, after the cursor and the filter. Default 0. */
    offset?: number;
    /** At most so many entries. Default 50. */
    limit?: number;
    /** Equality per field of the metadata, dotted paths too; an array means "one of". */
    filter?: Record<string, any>;
}
/** Options of an update. */
interface IndexUpdateOptions {
    /** Update only where `metadata.version` is this. */
    expectedVersion?: number;
}
/** Options of listing documents. */
interface ListOptions {
    /**
     * Begins after this document: the last one of the page before, of which `id` counts, and with `sortBy` that field of `doc`. It
     * need not be there any more. Unlike an offset, such pages do not shift while others save and delete.
     */
    cursor?: {
        id: string;
        doc?: Record<string, any>;
    };
    /** Equality per field of the document, dotted paths too; an array means "one of". */
    filter?: Record<string, any>;
    /** At most so many documents. Absent: all. */
    limit?: number;
    /** Documents to leave out at the beginning, after filter and sort. Default 0. */
    offset?: number;
    /** Field, or dotted path, to sort by. Absent: by id. */
    sortBy?: string;
    /** Direction of the sort. Default `asc`. */
    order?: 'asc' | 'desc';
}
/** What an adapter says about its backend. */
interface Health<Backend extends string = string> {
    /** Whether calls are answered now. */
    ok: boolean;
    /** Which backend it is. */
    backend: Backend;
    /** What is wrong, or worth knowing, in words. */
    detail?: string;
}
/** Counters of a store since it was made. Backends add their own. */
interface StoreStats {
    /** Events appended. */
    appends: number;
    /** Reading calls. */
    reads: number;
    /** Writing calls other than appends. */
    writes: number;
    /** Calls that failed in the backend. */
    errors: number;
    /** Counters of the backend. */
    [counter: string]: number;
}
/** Events by subject: what is appended stays, in order. nvent 0.5. */
interface EventStreams {
    /** Stores an event at the end of a subject and announces it on the store's bus. Returns the record as it was stored. */
    append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>>;
    /** Returns the events of a subject, by default all of them, in order of append; `[]` where it has none. */
    read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]>;
    /**
     * Calls `onEvent` with what is appended from now on, in order. `subject` may be a glob. Sees appends of this process
     * on memory and file; of every process on Redis, where it goes on after an outage where it was. On Redis, what nvent's own
     * adapters append comes within 5 s plus a second for each 2,000 keys of the database, or with the next event of its
     * subject.
     */
    subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription>;
    /**
     * Iterates over the events of one subject, from now on or after an id, and waits for more: `for await (const event of
     * store.stream.iterate(subject, { signal }))`. They are read from the store in pages, so that a slow loop loses nothing but what
     * retention or trimming removes before it is read. Ends when the loop is left or the store is closed. Keeps no process alive.
     */
    iterate(subject: string, opts?: EventIterateOptions): AsyncIterableIterator<EventRecord, void, void> & AsyncDisposable;
    /** Removes a subject with all its events. Returns whether there was anything. */
    delete(subject: string): Promise<boolean>;
}
/** Values by key. nvent 0.5. */
interface KeyValues {
    /** Returns the value, or null where there is no live one: 0, `''`, false and a stored null are values. */
    get<T = any>(key: string): Promise<T | null>;
    /** Stores any JSON value. `ttl` in seconds, fractions allowed; absent: for good. */
    set<T = any>(key: string, value: T, ttl?: number): Promise<void>;
    /** Removes a key. One that is not there is fine. */
    delete(key: string): Promise<void>;
    /**
     * Removes every key that matches a Redis glob, and nothing but kv values. Returns the number removed. On Redis, a pattern
     * without a literal beginning, such as `*`, removes only keys that this package wrote: other programs may use the database too.
     */
    clear(pattern: string): Promise<number>;
    /** Adds `by` (default 1) atomically, a missing value counting as 0, and keeps the ttl. Returns the new value. Rejects with NVENT_TYPE where the value is no number. */
    increment(key: string, by?: number): Promise<number>;
}
/**
 * Sorted lists of objects, such as the runs of a flow. nvent 0.5. On Redis an entry has at most 10,000 fields, and the key of
 * an index contains no `:meta:`, which separates it from its entries there; both are refused with NVENT_INVALID.
 */
interface Indexes {
    /** Adds an entry, or replaces its score and metadata. Dotted keys in metadata are expanded; undefined leaves nothing. */
    add(key: string, id: string, score: number, metadata?: Record<string, any>): Promise<void>;
    /** Returns the entry, or null. */
    get(key: string, id: string): Promise<IndexEntry | null>;
    /** Returns entries, highest score first, ties by id ascending. */
    read(key: string, opts?: IndexReadOptions): Promise<IndexEntry[]>;
    /** Returns the number of entries, or of those that the filter matches. */
    count(key: string, opts?: {
        filter?: Record<string, any>;
    }): Promise<number>;
    /**
     * Merges deeply and atomically. null and undefined delete, arrays are replaced; dotted keys reject with NVENT_INVALID.
     * Returns false where there is no such entry, or `expectedVersion` differs.
     */
    update(key: string, id: string, metadata: Record<string, any>, opts?: IndexUpdateOptions): Promise<boolean>;
    /** Merges as `update` does, also while others update the entry. Rejects with NVENT_NOT_FOUND where it is missing. `maxRetries` is accepted and not needed. */
    updateWithRetry(key: string, id: string, metadata: Record<string, any>, maxRetries?: number): Promise<void>;
    /** Adds `by` (default 1) to a field, or a dotted path, atomically. Returns the new value. A missing entry rejects with NVENT_NOT_FOUND, "Entry not found" in the message. */
    increment(key: string, id: string, field: string, by?: number): Promise<number>;
    /** Removes an entry. Returns whether it was there. */
    delete(key: string, id: string): Promise<boolean>;
}
/** A page of {@link StoreAdapter.subjects}. */
interface SubjectPage {
    /** May be empty although more pages follow. */
    subjects: string[];
    /** For the next page. null: this is the last one. */
    cursor: string | null;
}
/**
 * Pure storage: it knows no stream. After an append it announces the record on its bus. Calls on one adapter take
 * effect in the order in which they were made; what is returned is the caller's own copy.
 */
interface StoreAdapter {
    /** Opens the store. Idempotent; every other method opens it on first use as well. */
    init(): Promise<void>;
    /** Closes the store. Resolves when no lock, connection, task or callback is left. Idempotent; later calls reject with NVENT_CLOSED. */
    close(): Promise<void>;
    /** Asks the backend. Does not reject because the backend is down. */
    health(): Promise<Health<'memory' | 'file' | 'redis'>>;
    /** Returns its counters. */
    stats(): StoreStats;
    /** Events by subject. nvent 0.5. */
    readonly stream: EventStreams;
    /** Values by key. nvent 0.5. */
    readonly kv: KeyValues;
    /** Sorted indexes. nvent 0.5. */
    readonly index: Indexes;
    /**
     * Returns a page of the subjects that have events and that a glob (default `*`) matches. `cursor` is that of the page before;
     * null: it was the last page. By name in memory and on file; on Redis in no order, and a subject may come twice.
     */
    subjects(pattern?: string, cursor?: string | null): Promise<SubjectPage>;
    /** All events of the store, in the order in which it took them. */
    readonly feed: Feed;
    /**
     * Starts a durable consumer: `handler` is called with every event of the feed that the globs match. Its cursor is kept in the
     * store under `name`, so it goes on where it was after a restart, also after kill -9. At least once: an event is delivered
     * again unless its handler had resolved and the cursor was stored (within 200 ms). Of one name one consumer is at work at a
     * time, in all processes that share the store; others stand by. On Redis another takes over within 15 s when it is gone.
     *
     * Where retention or trimming removed events before the consumer had them, the handler is called with an event of the type
     * `stream.gap`, whose data is `{ reason: 'trimmed', missed }`.
     */
    consume(name: string, handler: (event: EventRecord, context: ConsumerContext) => unknown, opts?: ConsumeOptions): Promise<Consumer>;
    /** Returns all consumers of the store, whether or not they are at work. */
    consumers(): Promise<ListedConsumer[]>;
    /** Returns the parked events of a consumer, whether or not it is at work, in the order of the feed. Default limit 100. */
    parked(consumer: string, opts?: {
        limit?: number;
        after?: string;
    }): Promise<ParkedConsumerEvent[]>;
    /**
     * Requests that parked events are delivered again: these, or all. Resolves with their number when the request is stored. The
     * consumer at work, in whichever process, delivers them (on Redis within about 3 s); if there is none, the next one that
     * starts. Rejects with `NVENT_NOT_FOUND` if there is no such consumer. {@link Consumer.replay} also waits for the handlers.
     */
    replay(consumer: string, positions?: string[]): Promise<number>;
    /** Removes a consumer and what it parked. Resolves with whether there was one. */
    deleteConsumer(name: string): Promise<boolean>;
    /** Calls {@link StoreAdapter.close}. */
    [Symbol.asyncDispose](): Promise<void>;
    /** Calls {@link EventStreams.append}. nvent 0.4.1. */
    append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>>;
    /** Calls {@link EventStreams.read}. nvent 0.4.1. */
    read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]>;
    /** Calls {@link EventStreams.subscribe}. nvent 0.4.1. */
    subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription>;
    /** Stores a document, replacing one of the same id. nvent 0.4.1. */
    save(collection: string, id: string, doc: Record<string, any>): Promise<void>;
    /** Returns the document, or null. nvent 0.4.1. */
    get(collection: string, id: string): Promise<Record<string, any> | null>;
    /** Returns the documents of a collection, by id unless `sortBy` is given. nvent 0.4.1. */
    list(collection: string, opts?: ListOptions): Promise<Array<{
        id: string;
        doc: any;
    }>>;
    /** Removes a document. One that is not there is fine. nvent 0.4.1. */
    delete(collection: string, id: string): Promise<void>;
    /** Calls {@link Indexes.add}. nvent 0.4.1. */
    indexAdd: Indexes['add'];
    /** Calls {@link Indexes.get}. nvent 0.4.1. */
    indexGet: Indexes['get'];
    /** Calls {@link Indexes.read}. nvent 0.4.1. */
    indexRead: Indexes['read'];
    /** Calls {@link Indexes.update}. nvent 0.4.1. */
    indexUpdate: Indexes['update'];
    /** Calls {@link Indexes.updateWithRetry}. nvent 0.4.1. */
    indexUpdateWithRetry: Indexes['updateWithRetry'];
    /** Calls {@link Indexes.increment}. nvent 0.4.1. */
    indexIncrement: Indexes['increment'];
}
/** What every store takes. */
interface StoreOptions {
    /** Where appends are announced. Absent: `getEventBus()`. null: nowhere. */
    bus?: EventBus | null;
}
/** What an acknowledged write survives. `os`: the process being killed. `disk`: power loss too. */
type Durability = 'os' | 'disk';
/** What a file store keeps. What is older, or more, is removed in the background. */
interface Retention {
    /** Remove events older than so many milliseconds. Absent: never. */
    maxAgeMs?: number;
    /** Keep only the newest events of each subject. Absent: all. */
    maxEventsPerSubject?: number;
}
/** Options of {@link FileStoreAdapter}. */
interface FileStoreOptions extends StoreOptions {
    /** The folder of the store, made where it is missing. Relative to the working directory. One process at a time; the others get NVENT_LOCKED. */
    dataDir: string;
    /** What an acknowledged write survives. Default `os`; `disk` syncs, once for all writes that wait. */
    durability?: Durability;
    /**
     * Reads the store beside the process that has it open, or without one: the lock is not taken, nothing is written, older tables
     * are not brought up to date. What writes, and `consume` and `subscribe`, reject with NVENT_INVALID. Default false.
     */
    readOnly?: boolean;
    /** What is kept. Default: everything. All adapters on one directory must have the same. */
    retention?: Retention;
}
/** A store in a folder, for one process. */
interface FileStore extends StoreAdapter {
    /** Writes a copy of the whole store, as it is at one moment, to a new file at `path`. */
    backup(path: string): Promise<void>;
    /** Reads everything and returns what is wrong with it. */
    verify(): Promise<{
        ok: boolean;
        problems: string[];
    }>;
}
/** Options of {@link RedisStoreAdapter}. */
interface RedisStoreOptions extends StoreOptions {
    /** Default: `127.0.0.1:6379`. */
    connection?: RedisConnection;
    /**
     * What the store's own keys begin with; subjects, kv keys and index keys are used as they are given, and must not begin
     * with `{prefix}:~`. Default `nvent`.
     */
    prefix?: string;
    /** How long the event streams get. */
    streams?: {
        /**
         * Trim on append. Default `{ maxLen: 10000, approx: true }`, as nvent does. A run that is not over keeps all its events,
         * up to ten times `maxLen`; beyond, a warning NVENT_RUN_TRIMMED.
         */
        trim?: {
            /** Events that a subject keeps. */
            maxLen?: number;
            /** Let Redis keep somewhat more, which is cheaper. */
            approx?: boolean;
        };
    };
}

/** A message. Further fields are passed on as they came. */
interface StreamEvent<Type extends string = string> {
    /** What a `filter` is matched against. */
    type: Type;
    /** The payload: any JSON value. */
    data: EventData<Type>;
    /** About the message: `instanceId` of who appended the event in what the coordinator routes. */
    metadata?: Record<string, any>;
    /** When it was sent: Unix time in milliseconds. */
    timestamp?: number;
}
/**
 * Delivered to a subscriber when events may have been missed: flush the cache, or catch up. It passes every filter.
 * {@link isStreamGap} distinguishes it from a message.
 */
interface StreamGap extends StreamEvent<'stream.gap'> {
    /**
     * Why, where, and how many where that is known. `reconnect`: the connection to Redis was lost. `overflow`: the subscriber's
     * buffer was full. `publish-failed`: the stream coordinator could not publish. `trimmed`: Redis had removed retained events, or
     * a file or Redis store had removed events before the coordinator published them.
     */
    data: {
        reason: 'reconnect' | 'overflow' | 'publish-failed' | 'trimmed';
        topic: string;
        missed?: number;
    };
}
/** The type of messages that a `filter` lets through: itself, where it is no glob. */
type FilteredType<Filter> = Filter extends string ? Filter extends `${string}${'*' | '?' | '[' | '\\'}${string}` ? string : Filter : string;
/** A value that none of its readers can change. */
type Frozen<T> = T extends object ? {
    readonly [Key in keyof T]: Frozen<T[Key]>;
} : T;
/** What a handler is given: an object of its own, or with `shared` a frozen one. */
type Delivered<Message, Shared extends boolean> = Shared extends true ? Frozen<Message> : Message;
/** Options of a subscription. */
interface SubscribeOptions<Filter extends string | RegExp = string | RegExp, Shared extends boolean = boolean> {
    /**
     * Exactly one member of a group gets each event. On Redis the topic must be retained; NVENT_INVALID otherwise. There an
     * event whose handler failed is delivered again, and parked after five times: see `RedisStreamAdapter.parked`.
     */
    group?: string;
    /**
     * Which types are delivered, matched natively. A string is a glob. A RegExp means what `test` with `lastIndex` 0 means, in
     * linear time; look-around, back-references, modifiers and classes of strings are NVENT_INVALID. Absent: all.
     */
    filter?: Filter;
    /** First everything retained, then live, without hole or duplicate. The topic must be retained; NVENT_INVALID otherwise. Default false. */
    fromBeginning?: boolean;
    /** Leave out what this adapter published itself. Default false. With `group`: NVENT_INVALID, as an event that goes to one member would be lost. */
    ignoreOwn?: boolean;
    /** Events that may wait for this subscriber. Default 10,000. */
    buffer?: number;
    /** When the buffer is full: drop the oldest (default) or the newest, and report a gap; or let publishers wait. */
    overflow?: 'drop-oldest' | 'drop-newest' | 'block';
    /**
     * The handler gets the same object as other subscriptions with `shared`, deeply frozen, and none of its own: with many subscribers
     * of one topic that is most of the time. Those of one topic with the same options share one native subscription; one that joins
     * may also get what was published just before. Default false.
     */
    shared?: Shared;
}
/** Options of a loop over messages. */
interface MessagesOptions<Filter extends string | RegExp = string | RegExp, Shared extends boolean = boolean> extends SubscribeOptions<Filter, Shared> {
    /** Ends the loop with an `AbortError` when it is aborted. */
    signal?: AbortSignal;
}
/** A subscription to a topic. */
interface SubscriptionHandle {
    /** Names the subscription within its adapter. */
    id: string;
    /** The topic, or the glob, that was subscribed to. */
    topic: string;
    /** Ends it. After it resolves the handler is not called again. Needs no `this`; calling it twice is fine. */
    unsubscribe: () => Promise<void>;
    /** Calls {@link SubscriptionHandle.unsubscribe}. */
    [Symbol.asyncDispose]: () => Promise<void>;
}
/** Counters of a stream since it was made. */
interface StreamStats {
    /** Events that the broker took from this adapter. */
    published: number;
    /** Events handed to handlers. */
    delivered: number;
    /** Events that overflowed a buffer. */
    dropped: number;
    /** Gaps reported to handlers. */
    gaps: number;
    /** Handlers that threw or rejected. The first is reported as a process warning. */
    handlerErrors: number;
    /** Connections made again after an outage. */
    reconnects: number;
    /** Counters of the backend. */
    [counter: string]: number;
}
/** Pure delivery: it knows no store. */
interface StreamAdapter {
    /**
     * Set by an application's own stream that reaches the subscribers of every process: on a Redis store one instance then
     * publishes for all. Otherwise each instance publishes every event of the store to its own stream.
     */
    readonly shared?: boolean;
    /** Opens the stream. Idempotent; every other method opens it on first use as well. */
    init(): Promise<void>;
    /** Sends any JSON object, whole. Resolves when the broker has it; a failing handler never fails a publish. */
    publish<const Type extends string>(topic: string, event: StreamEvent<Type>): Promise<void>;
    /** Calls `handler` with what is published to a topic, or to every topic that a Redis glob matches (`*` crosses colons). */
    subscribe<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(topic: string, handler: (event: Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, topic: string) => unknown, opts?: SubscribeOptions<Filter, Shared>): Promise<SubscriptionHandle>;
    /**
     * Iterates over messages: {@link StreamAdapter.subscribe} for `for await`. The subscription begins with this call (on Redis when the
     * broker has it). While the loop is busy up to 256 messages wait for it, then the subscription's `buffer`, then its `overflow`
     * applies, and a gap reports it. In a `group` a message counts as handled when the next one is asked for; leaving the loop hands
     * the last one back as failed. Ends when the loop is left or the stream is shut down. Keeps no process alive.
     */
    messages<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(topic: string, opts?: MessagesOptions<Filter, Shared>): AsyncIterableIterator<Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, void, void> & AsyncDisposable;
    /** Ends a subscription. After it resolves the handler is not called again. */
    unsubscribe(handle: SubscriptionHandle): Promise<void>;
    /** Returns the topics and globs that handlers of this adapter are subscribed to, each once. */
    listTopics(): Promise<string[]>;
    /** Returns the number of handlers of this adapter that are subscribed to exactly this topic or glob. */
    getSubscriptionCount(topic: string): Promise<number>;
    /** Ends every subscription and closes the stream. Idempotent; later calls reject with NVENT_CLOSED. */
    shutdown(): Promise<void>;
    /** Asks the broker. Does not reject because it is down. */
    health(): Promise<Health<'memory' | 'redis'>>;
    /** Returns its counters. */
    stats(): StreamStats;
}
/** Options of {@link MemoryStreamAdapter}. */
interface MemoryStreamOptions {
    /** Keep what was published, so that `fromBeginning` works. Absent: nothing is kept. */
    retain?: {
        /** Events kept for each topic. */
        maxEvents?: number;
        /** How long an event is kept, in milliseconds. */
        maxAgeMs?: number;
    };
}
/** Options of {@link RedisStreamAdapter}. */
interface RedisStreamOptions {
    /** Default: `127.0.0.1:6379`. */
    connection?: RedisConnection;
    /** What the keys of retained topics begin with; channels are named as their topic. Default `nvent`. */
    prefix?: string;
    /** Topics (globs) that are also kept in a Redis Stream, so that `fromBeginning`, `group` and catching up after a gap work on them. */
    retain?: {
        /** Which topics. */
        topics: string[];
        /** Events kept for each topic. */
        maxLen?: number;
    };
}
/** An event that a group failed at too often. */
interface ParkedEvent {
    /** Its id in the retained topic. */
    id: string;
    /** How often it was delivered. */
    deliveries: number;
    /** The event, as it was published. */
    event: StreamEvent;
}

/** Where a job is in its life. */
type JobState = 'waiting' | 'active' | 'completed' | 'failed' | 'delayed' | 'paused';
/** Events of a queue. */
type QueueEvent = 'waiting' | 'active' | 'progress' | 'completed' | 'failed' | 'delayed' | 'paused' | 'stalled';
/** Options of a job. */
interface JobOptions {
    /** An id that is there already is a no-op that returns the same id. Absent: one is made. */
    jobId?: string;
    /** How often the job is tried in all; Infinity: until it succeeds. Default 1. */
    attempts?: number;
    /** Wait before another attempt: a number is a fixed delay in milliseconds. */
    backoff?: number | {
        /** `exponential`: twice as long after each attempt. */
        type: 'exponential' | 'fixed';
        /** The (first) wait, in milliseconds. */
        delay: number;
        /** The part of a wait, from 0 to 1, that chance may take away. Default 0. */
        jitter?: number;
    };
    /** Milliseconds before the job may run. Default 0. */
    delay?: number;
    /** Lower numbers run first; jobs without one run before them. */
    priority?: number;
    /** Runs before the jobs of its priority that wait already. */
    lifo?: boolean;
    /** Milliseconds after which an attempt counts as failed and its signal is aborted. Absent, 0 or Infinity: never. */
    timeout?: number;
    /** Removes the job when it completes; a number keeps that many of the newest, false all. Default 10,000 for each queue. */
    removeOnComplete?: boolean | number | KeepJobs;
    /** Removes the job after its final failure; a number keeps that many of the newest, false all. Default 10,000 for each queue. */
    removeOnFail?: boolean | number | KeepJobs;
    /** W3C trace context that the spans of its attempts continue. Set by `enqueue` where the application traces. */
    traceparent?: string;
}
/** Which of the jobs that ended are kept, looked at when one ends: the newest `count`, and of them those that ended at most `age` seconds ago. */
type KeepJobs = {
    /** The newest so many. */
    count: number;
} | {
    /** Those that ended at most so many seconds ago. */
    age: number;
    /** Of them the newest so many. */
    count?: number;
};
/** A job to be done. */
interface NewJob<Data = any> {
    /** Which handler of the queue runs it. */
    name: string;
    /** Any JSON value. */
    data: Data;
    /** Options; they win over the queue's `defaultJobOptions`. */
    opts?: JobOptions;
}
/** A job, as the queue returns it. */
interface Job<Data = any, Result = any> {
    /** Unique within its queue. */
    id: string;
    /** Which handler runs it. */
    name: string;
    /** What it was given. */
    data: Data;
    /** How it is run, as far as it was said. */
    opts?: JobOptions;
    /** Where it is in its life. */
    state: JobState;
    /** What its handler returned. */
    returnvalue?: Result;
    /** Why its last attempt failed. */
    failedReason?: string;
    /** When it was enqueued, in milliseconds, as the two below. */
    timestamp?: number;
    /** When its last attempt began. */
    processedOn?: number;
    /** When it ended. */
    finishedOn?: number;
    /** Attempts so far. */
    attemptsMade?: number;
    /** How often its worker went away while it ran. Absent: never. */
    stalledCounter?: number;
    /** Reported by its handler, from 0 to 100. */
    progress?: number;
}
/** A job, as its handler gets it. */
type RunningJob<Data = any, Result = any> = Job<Data, Result> & {
    /** How it is run: its own options, and the queue's `defaultJobOptions`. */
    opts: JobOptions;
};
/** When a scheduled job runs. */
interface ScheduleOptions {
    /** Once, after so many milliseconds. */
    delay?: number;
    /** Again and again: five fields, or six with seconds first. */
    cron?: string;
    /** The same, with an end, in a time zone (an IANA name; default: the system's). */
    repeat?: {
        pattern?: string;
        limit?: number;
        tz?: string;
    };
}
/** Options of a worker. */
interface WorkerOptions {
    /** Jobs of the queue that run at a time; the first registration of a queue counts. Default 1. */
    concurrency?: number;
    /** Whether jobs run once the worker is registered. false: they wait until `resume`. Default true. */
    autorun?: boolean;
    /** Milliseconds that a handler may go on after its timeout before its place is given to another job, with a warning. Default 30,000. */
    abandonAfter?: number;
    /** Keeps the process alive until the queue is closed. Otherwise a process that has nothing else to do ends. Default false. */
    keepAlive?: boolean;
}
/** Which jobs to list. */
interface JobQuery {
    /** Jobs in one of these states. Absent: all. */
    state?: JobState[];
    /** At most so many. */
    limit?: number;
    /** Jobs to leave out at the beginning. Default 0. */
    offset?: number;
}
/** Second argument of a worker's handler. */
interface JobContext {
    /**
     * Aborted when the attempt times out, its job is removed, or `close()` has waited long enough. The attempt keeps its
     * place until its handler has settled, so attempts of a job never overlap and the concurrency is exact; see
     * `abandonAfter`.
     */
    readonly signal: AbortSignal;
    /** Stores how far the job is: any JSON. */
    progress(value: any): Promise<void>;
}
/** nvent's QueueAdapter. */
interface QueueAdapter {
    /** Opens the queue. Idempotent; every other method opens it on first use as well. */
    init(): Promise<void>;
    /** Adds a job. Returns its id. */
    enqueue<Data = any>(queue: string, job: NewJob<Data>): Promise<string>;
    /** Adds a job that runs later, or again and again. Returns the schedule's id. */
    schedule<Data = any>(queue: string, job: NewJob<Data>, opts?: ScheduleOptions): Promise<string>;
    /** Returns the job, or null. */
    getJob<Data = any, Result = any>(queue: string, id: string): Promise<Job<Data, Result> | null>;
    /**
     * Returns jobs: those that wait in the order in which they run, the others newest first. Only those of the page are
     * read; an offset is a walk along the index, 5 ms for 100,000 jobs.
     */
    getJobs<Data = any, Result = any>(queue: string, query?: JobQuery): Promise<Array<Job<Data, Result>>>;
    /** Returns the number of jobs in each state. */
    getJobCounts(queue: string): Promise<Record<JobState, number>>;
    /** Returns the schedules of a queue: `{ id, jobName, queueName, pattern, cron, tz?, limit?, repeatCount, nextRun }`, `nextRun` a Date. */
    getScheduledJobs(queue: string): Promise<any[]>;
    /** Removes a schedule, or a job that `schedule` delayed. Returns whether there was one. */
    removeScheduledJob(scheduleId: string): Promise<boolean>;
    /** Removes a job; the result of an active one is ignored. Returns whether it was there. */
    removeJob(queue: string, jobId: string): Promise<boolean>;
    /**
     * Calls `callback` for each event of this type of the queue, with `{ jobId, name, attemptsMade, … }` and, as the event has
     * it, `job` (waiting, delayed), `delay`, `progress`, `returnvalue`, or `failedReason` and `maxAttempts`. Returns a function
     * that removes the listener.
     */
    on(queue: string, event: QueueEvent, callback: (payload: any) => void): () => void;
    /** Returns whether a queue is paused. */
    isPaused(queue: string): Promise<boolean>;
    /** Pauses a queue until `resume`: once the call has resolved, no job starts and no handler is called. */
    pause(queue: string): Promise<void>;
    /** Resumes a paused queue. */
    resume(queue: string): Promise<void>;
    /** Registers the handler that runs the jobs of a name. A rejection is a failed attempt; a result with `awaiting: true` means: forget the job, its id may be used again. */
    registerWorker<Data = any, Result = any>(queue: string, jobName: string, handler: (job: RunningJob<Data, Result>, context: JobContext) => Promise<Result>, opts?: WorkerOptions): void;
    /** Makes a failed job wait for one more attempt. Returns whether it had failed. */
    retryJob(queue: string, jobId: string): Promise<boolean>;
    /** Returns whether the queue is usable. */
    health(): Promise<{
        ok: boolean;
        backend: string;
        detail?: string;
    }>;
    /** Returns the counters of this adapter. */
    stats(): Record<string, number>;
    /** Starts the workers of a queue. Optional: they run by themselves. Within nvent, those that it registers while it starts wait for this call. */
    startProcessingQueue(queue: string): void;
    /**
     * Starts no further job, waits up to 30 s for running handlers, then closes. Jobs that are enqueued meanwhile, also by
     * these handlers, are stored and run at the next start. A job ends once the store calls that its handler caused have
     * been answered, for which it waits up to 5 s.
     */
    close(): Promise<void>;
}
/** What an adapter has done since it was made, as numbers. */
interface QueueStats extends Record<string, number> {
    enqueued: number;
    /** Attempts whose handler was called, succeeded and failed. */
    started: number;
    completed: number;
    failed: number;
    /** Handlers at work. */
    running: number;
    workers: number;
    /** Listeners that threw, and outcomes that could not be stored. */
    handlerErrors: number;
}
/** A queue with files of its own. */
interface FileQueue extends QueueAdapter {
    /**
     * Copies all queues, as they are at one moment, to a new file at `path`. To restore, put it into an empty `dataDir`
     * under the name `queue.db`. Other calls wait meanwhile.
     */
    backup(path: string): Promise<void>;
    /** Reads everything and reports what is wrong. Other calls wait meanwhile. */
    verify(): Promise<{
        ok: boolean;
        problems: string[];
    }>;
}
/** Options of {@link MemoryQueueAdapter}. */
interface QueueOptions {
    /** For jobs that do not say otherwise. */
    defaultJobOptions?: JobOptions;
}
/** Options of {@link FileQueueAdapter}. */
interface FileQueueOptions extends QueueOptions {
    /** The folder of the queue, made where it is missing. One process at a time; the others get NVENT_LOCKED. */
    dataDir: string;
    /** What an acknowledged job survives. Default `os`. */
    durability?: Durability;
}

/** A flow: its steps, and what each waits for. */
interface FlowDefinition {
    /** The flow's name. */
    id: string;
    /** The step that starts a run. The caller that starts the run enqueues it. */
    entry?: {
        /** Its name. */
        step: string;
        /** The queue it runs on. Default: its name. */
        queue?: string;
        /** Names that it emits. */
        emits?: string[];
    };
    /** The other steps, by name. */
    steps: Record<string, {
        /** Emitted names, or `step:<name>` for a step's completion. The step runs once all have happened. */
        subscribes?: string[];
        /** Names that it emits. */
        emits?: string[];
        /** The queue it runs on. Default: its name. */
        queue?: string;
    }>;
}
/** What a step of a flow from `defineFlow` is given beside its input. */
interface StepContext {
    /** The run's id. */
    readonly runId: string;
    /** The flow's id. */
    readonly flowId: string;
    /** The step's name. */
    readonly step: string;
    /** From 1; counts over retries of the run as well. */
    readonly attempt: number;
    /** Aborted when the attempt times out, the run is cancelled, or the queue closes. */
    readonly signal: AbortSignal;
    /** Resolves when the event is stored. Steps that subscribe to the name run with the payload. */
    emit<const Name extends string>(name: Name, payload?: EventData<Name>): Promise<void>;
    /** Values of the run, stored under `nq:flow:{runId}:{key}`; removed `keepState` ms after its end. */
    readonly state: {
        /** Resolves with the value, or null. */
        get<T = any>(key: string): Promise<T | null>;
        /** Stores a value. */
        set(key: string, value: any): Promise<void>;
        /** Removes a value. */
        delete(key: string): Promise<void>;
    };
    /** Stores an event of type `log` with `{ level, message, data }` in the run. */
    log(level: 'debug' | 'info' | 'warn' | 'error', message: string, data?: any): Promise<void>;
}
/** A step of a flow from `defineFlow`. */
interface StepOptions<Input = any> {
    /** Emitted names, or `step:<name>` for a step's completion. The step runs once all have happened. Absent: the entry. */
    subscribes?: string[];
    /** Names that it emits. */
    emits?: string[];
    /** The queue it runs on. Default: one of its own, `<flow>.<step>`. */
    queue?: string;
    /** How often the step is tried in all. Default 1. */
    attempts?: number;
    /** Pause before another attempt, in ms. */
    backoff?: number | {
        type: 'fixed' | 'exponential';
        delay: number;
    };
    /** Time for one attempt, in ms. Default: none. */
    timeout?: number;
    /** Runs of the step at a time in this process. Default 1. */
    concurrency?: number;
    /**
     * Does the step's work. The entry is given the run's input, the others `{ [name]: payload }` of what they subscribe to.
     * What it returns is stored as `result` of `step.completed`. It may run again after a crash: it should be idempotent.
     */
    run: (input: Input, step: StepContext) => unknown;
}
/** A flow with the functions of its steps, as `defineFlow` returns it. */
interface Flow<Input = any> extends FlowDefinition {
    /** The steps as they were given. */
    readonly handlers: Record<string, StepOptions>;
    /** Carries the type of the input; has no value. */
    readonly __input?: Input;
}
/** How a run ended. */
interface RunEnd {
    /** Its status. */
    status: 'completed' | 'failed' | 'canceled';
    /** What failed, or the reason of the cancellation. */
    error?: string;
}
/** A run, as `startFlow` returns it. */
interface FlowRun {
    /** Its id. */
    runId: string;
    /** false where the run was there already. */
    created: boolean;
    /**
     * Resolves with the run's end, from the log, in any instance. Keeps the process alive meanwhile. Rejects with
     * NVENT_UNAVAILABLE after `timeout` ms, and with the signal's reason.
     */
    result(opts?: {
        signal?: AbortSignal;
        timeout?: number;
    }): Promise<RunEnd>;
}
/** A flow of a running registry, as `listFlows` returns it. */
interface ListedFlow {
    /** Its name. */
    id: string;
    /** Key of the index of its runs. */
    runIndex: string;
    /** Subject of its runs, with a place for `{runId}`. */
    runSubject: string;
    /** Its steps, the entry first. */
    steps: Array<{
        name: string;
        queue: string;
        subscribes: string[];
        emits: string[];
    }>;
}
/** Options of `runState`. */
interface RunStateOptions {
    /** Absent: the current store. */
    store?: StoreAdapter;
    /** Subject of the run. Absent: as the running registry has it. */
    subject?: string;
    /** The id of the last event that counts. Absent: the whole log. An id that the log has not: nothing has happened yet. */
    until?: string;
}
/** What a step of a run does, or waits for. */
interface StepSnapshot {
    /** Steps that have not begun are known from the definition of a running registry only. */
    state: 'waiting' | 'enqueued' | 'active' | 'completed' | 'failed';
    /** Subscriptions of a waiting step that have not happened. */
    unmet?: string[];
    /** Why it failed. */
    error?: string | null;
}
/** The state of a run after an event of its log: what flow wiring decides by. */
interface RunSnapshot {
    status: 'running' | 'completed' | 'failed' | 'canceled';
    flowName?: string;
    /** Unix time in ms, as the two below. */
    startedAt?: number;
    lastActivityAt?: number;
    completedAt?: number;
    error?: string;
    stepCount: number;
    completedSteps: number;
    steps: Record<string, StepSnapshot>;
    /** The first emit of each name. */
    emits: Record<string, {
        ts: number;
        payload: any;
    }>;
    /** How often the run was retried. */
    retries: number;
    input?: any;
}
/** Options of `streamRun`. */
interface RunStreamOptions {
    /** Absent: the current store. */
    store?: StoreAdapter;
    /** Not needed: the store's log is followed. */
    stream?: StreamAdapter;
    /** Subject of the run. Absent: as the running registry has it, else `nq:flow:{runId}`. */
    subject?: string;
}
/** Where runs and their index are kept. `{runId}` and `{flowName}` are filled in. */
interface FlowSubjects {
    /** Subject of a run's events. Default `nq:flow:{runId}`. */
    run?: string;
    /** Key of the index of a flow's runs. Default `nq:flows:{flowName}`. */
    runIndex?: string;
}
/** Options of flow wiring. */
interface FlowWiringOptions {
    /** Where events come from. Absent: `getEventBus()`. */
    bus?: EventBus;
    /** Where runs are kept. Absent: the current store. */
    store?: StoreAdapter;
    /** Where steps are enqueued. Absent: the current queue. */
    queue?: QueueAdapter;
    /** The flows, or a function that gives them. */
    flows?: FlowDefinition[] | (() => FlowDefinition[]);
    /** Where runs and their index are kept. */
    subjects?: FlowSubjects;
}
/** Counters of flow wiring. */
interface FlowStats {
    /** Ingress events persisted. */
    persisted: number;
    /** Steps enqueued. */
    triggered: number;
    /** Runs ended as completed. */
    completed: number;
    /** Runs ended as failed. */
    failed: number;
    /** Further attempts to do something. */
    retries: number;
    /** Ingress events that wait to be persisted. */
    lag: number;
    /** Ingress events that were dropped after the last attempt. */
    lost: number;
    /** Other permanent failures: a step that the queue refused, an index entry that was not written, a log that was not read. */
    errors: number;
    /** Steps run once more because a crash had lost the events of their handler. */
    recovered: number;
}
/** Flow wiring, as `createFlowWiring` returns it. */
interface FlowWiring extends Wiring {
    /** Stops it. */
    [Symbol.asyncDispose](): Promise<void>;
    /** Returns its counters. */
    stats(): FlowStats;
}

/** How a trigger is fired. */
type TriggerKind = 'event' | 'schedule' | 'webhook' | 'manual';
/** What starts flows. */
interface TriggerDefinition {
    /** Unique in the registry; at most 200 characters. Also the last part of a webhook's path. */
    id: string;
    /** What fires it. `fire` can fire a trigger of any kind. */
    on: {
        /** Globs of types of persisted events, such as `flow.completed`. The history of triggers only matches globs that begin with `trigger.`. */
        event: string | string[];
        /** Names of flows that the event must be of. Absent: any, or none. */
        flow?: string | string[];
        /** Equality per field of the event, dotted paths too; an array means "one of". */
        filter?: Record<string, any>;
    } | {
        /** Cron: five fields, or six with seconds first. */
        schedule: string;
        /** An IANA name. Absent: the system's. */
        timezone?: string;
    } | {
        /** Signed requests, see {@link handleWebhook}. Several secrets while one is rotated: `whsec_` and base64, or base64. */
        webhook: {
            secret: string | string[];
        };
    } | {
        /** Only `fire`. */
        manual: true;
    };
    /** Flows to start, by id. */
    start: string | string[];
    /** Returns the input of the runs. Absent: `cause.data`. One that throws is tried again as a consumer's handler is, then the cause is parked. */
    input?: (cause: TriggerCause) => any;
    /**
     * Causes of one key start one run together. A window ends `wait` ms after its last cause, at most `maxWait` ms after its first,
     * and with 10,000 causes. For triggers by events and webhooks; `fire` does not wait.
     */
    debounce?: {
        /** Returns the key of a cause. Absent: one for all. */
        key?: (cause: TriggerCause) => string;
        /** ms */
        wait: number;
        /** ms. Absent: no limit. */
        maxWait?: number;
    };
    /** Whether it fires before `enable` or `disable` was ever called for its id. Default true. */
    enabled?: boolean;
}
/** Why a trigger fires. */
interface TriggerCause {
    /** Unique in the trigger: of an event its subject and id, of a schedule the due time, of a webhook its `webhook-id`. */
    id: string;
    /** The trigger's id. */
    trigger: string;
    /** What fired it: 'manual' for `fire`, whatever the trigger is. */
    kind: TriggerKind;
    /** Data of the event, body of the webhook, or what `fire` was given; of a schedule `{ dueAt }`, in ms. Debounced: that of the last cause. */
    data: any;
    /** The event. Debounced: the last one. */
    event?: EventRecord;
    /** Debounced: the events of the window, oldest first. Of a webhook: the stored requests, with the body as data. */
    events?: EventRecord[];
    /** When it happened: Unix time in milliseconds. Of a schedule the due time. */
    at: number;
}
/** Options of {@link createTriggerWiring}. */
interface TriggerWiringOptions {
    /** Not needed: triggers follow the store's feed. */
    bus?: EventBus;
    /** Not needed: triggers follow the store's feed. */
    stream?: StreamAdapter;
    /** Where causes, runs and history are. Absent: the current store. */
    store?: StoreAdapter;
    /** Where the entry steps are enqueued. Absent: the current queue. */
    queue?: QueueAdapter;
    /** The flows that can be started. Absent: those of running registries. */
    flows?: FlowDefinition[] | (() => FlowDefinition[]);
    /** The triggers, or a function that gives them, called at each start. */
    triggers: TriggerDefinition[] | (() => TriggerDefinition[]);
}
/** A trigger, as {@link TriggerWiring.list} returns it. */
interface ListedTrigger {
    /** Its id. */
    id: string;
    /** Its kind. */
    kind: TriggerKind;
    /** Whether it fires. */
    enabled: boolean;
    /** How often it has fired, on all instances. */
    fired: number;
    /** Unix time in milliseconds. */
    lastFiredAt?: number;
    /** When a schedule is due next: Unix time in milliseconds. */
    nextRunAt?: number;
    /** Causes that have failed too often. */
    parked: number;
}
/** Counters of this instance since its last start. */
interface TriggerStats {
    /** Triggers that are running. */
    triggers: number;
    /** Firings recorded. */
    fired: number;
    /** Runs started. */
    started: number;
    /** Attempts to fire that failed. */
    failed: number;
    /** Causes stopped because their chain was too long. */
    depth: number;
    /** Causes that wait in debounce windows here. */
    waiting: number;
    /** Parked causes. */
    parked: number;
}
/** Triggers, as `createTriggerWiring` returns them. */
interface TriggerWiring extends Wiring {
    /** Stops it. */
    [Symbol.asyncDispose](): Promise<void>;
    /**
     * Fires a trigger of any kind at once. Resolves when its runs are started. The same `idempotencyKey` starts nothing again and
     * resolves with the same ids and `created: false`. Rejects with NVENT_NOT_FOUND where there is no such trigger, NVENT_INVALID
     * where it is disabled, and with what its `input` throws.
     */
    fire(id: string, data?: any, opts?: {
        idempotencyKey?: string;
    }): Promise<{
        runIds: string[];
        created: boolean;
    }>;
    /** Returns all triggers, in the order of their definition. */
    list(): Promise<ListedTrigger[]>;
    /** Fires on what is stored from now on. Holds in the store: also after a restart, and for other instances. */
    enable(id: string): Promise<void>;
    /** Lets causes pass without firing. Holds in the store: also after a restart, and for other instances. */
    disable(id: string): Promise<void>;
    /** Returns the causes that have failed too often, in the order of the feed. `limit`: default 100. */
    parked(id: string, opts?: {
        limit?: number;
        after?: string;
    }): Promise<ParkedConsumerEvent[]>;
    /** Tries parked causes again: these, or all. Resolves with their number. */
    replay(id: string, positions?: string[]): Promise<number>;
    /** Returns its counters. */
    stats(): TriggerStats;
}

/** An event becomes a signed POST, as Standard Webhooks has it: `webhook-id`, `webhook-timestamp`, `webhook-signature`. */
interface WebhookDefinition {
    /** Unique in the registry: letters, digits, `-` and `_`, at most 100. It is the name of a durable consumer, `webhook:<name>`. */
    name: string;
    /** Globs of types of persisted events. */
    types: string | string[];
    /** Names of flows that the event must be of. Absent: any, or none. */
    flow?: string | string[];
    /** Equality per field of the event, dotted paths too; an array means "one of". */
    filter?: Record<string, any>;
    /** `http:` or `https:`, without user and password. A function that throws makes the attempt fail. */
    url: string | ((event: EventRecord) => string);
    /** `whsec_` and base64, or base64; several while one is rotated. Absent: requests are not signed. */
    secret?: string | string[];
    /** Further headers. Those of the connection and `webhook-…` are refused. */
    headers?: Record<string, string>;
    /** Returns the body; a string is sent as it is, anything else as JSON. Absent: `{ type, timestamp, data: event }`. */
    body?: (event: EventRecord) => any;
    /** From resolving the name to the status, in ms: 1 to 300,000. Default 15,000. */
    timeout?: number;
    /**
     * Attempts before a delivery is parked, 1 to 100. Default 8: immediately, then after 5 s, 30 s, 2 min, 10 min, 1 h, 6 h and 24 h,
     * with up to a tenth more by chance. `Retry-After` of a 429 or 503 is honoured up to 24 h. A 410 disables the webhook.
     */
    attempts?: number;
    /** Loopback, private, link-local, metadata and reserved addresses are refused after DNS resolution. Redirects are never followed. Default false. */
    allowPrivate?: boolean;
}
/** Options of {@link createWebhookWiring}. */
interface WebhookWiringOptions {
    /** Not needed: webhooks follow the store's feed. */
    bus?: EventBus;
    /** Where `webhook:{flowName}` is published. Absent: the current stream, if there is one. */
    stream?: StreamAdapter;
    /** Where the events and the states of deliveries are. Absent: the current store. */
    store?: StoreAdapter;
    /** What runs the attempts. Absent: the current queue. */
    queue?: QueueAdapter;
    /** The webhooks, or a function that gives them, called at each start. */
    webhooks: WebhookDefinition[] | (() => WebhookDefinition[]);
}
/** Where a delivery is: under way, answered with 2xx, or parked after its last attempt. */
type WebhookDeliveryState = 'pending' | 'delivered' | 'failed';
/** A delivery, as {@link WebhookWiring.deliveries} returns it. */
interface WebhookDelivery {
    /** `<webhook>:<event id>:<hash of the subject>`: event ids are unique in their subject only. Each attempt has it as its `webhook-id`. */
    id: string;
    /** The type of the event. */
    event: string;
    /** The subject of the event. */
    subject: string;
    /** The id of the event. */
    eventId: string;
    /** Where it is. */
    state: WebhookDeliveryState;
    /** Attempts that are over; `redeliver` begins again. */
    attempts: number;
    /** The status of the last answer. */
    status?: number;
    /** Why the last attempt failed. */
    error?: string;
    /** When it came to its state, or its last attempt ended: Unix time in milliseconds. */
    at: number;
}
/** Counters of this instance since the wiring was created. */
interface WebhookStats {
    /** Webhooks that are running. */
    webhooks: number;
    /** Events that became deliveries. */
    taken: number;
    /** Events that came while their webhook was disabled. */
    skipped: number;
    /** Attempts. */
    attempts: number;
    /** Deliveries answered with 2xx. */
    delivered: number;
    /** Attempts that failed. */
    failed: number;
    /** Deliveries that were parked. */
    parked: number;
    /** Requests under way. */
    running: number;
}
/** Webhooks, as `createWebhookWiring` returns them. */
interface WebhookWiring extends Wiring {
    /** Stops it. */
    [Symbol.asyncDispose](): Promise<void>;
    /** Returns the deliveries of a webhook, newest first: at most `limit`, default 100. The newest 10,000 are kept, and all that are pending. */
    deliveries(name: string, opts?: {
        state?: WebhookDeliveryState;
        limit?: number;
    }): Promise<WebhookDelivery[]>;
    /**
     * Delivers once more what was delivered or parked, with all attempts. Resolves when that is stored; a pending delivery stays as it
     * is. Rejects with NVENT_NOT_FOUND where there is none, NVENT_INVALID where its webhook is disabled.
     */
    redeliver(id: string): Promise<void>;
    /** Sends one event of the type `webhook.test`, once, and resolves with whatever status came. Rejects where none did. */
    test(name: string): Promise<{
        status: number;
        ms: number;
    }>;
    /** Delivers what is stored from now on. Holds in the store: also after a restart, and for other instances. */
    enable(name: string): Promise<void>;
    /** Lets events pass without delivery; what is pending is parked. Holds in the store, as a 410 does. */
    disable(name: string): Promise<void>;
    /** Returns whether a webhook delivers. */
    isEnabled(name: string): Promise<boolean>;
    /** Returns its counters. */
    stats(): WebhookStats;
}

/** A part that connects adapters while it runs. Your own can be given to the registry. */
interface Wiring {
    /** Starts it. Idempotent in the wirings of this package. */
    start(): void | Promise<void>;
    /** Stops it. What is under way is drained within a deadline (5 s in the wirings of this package). */
    stop(): void | Promise<void>;
}
/** A channel: which persisted events go to which topic. */
interface ChannelDefinition {
    /** Names the channel in `stats().routed`. */
    name: string;
    /** Event types that it takes; `'*'` is every type. */
    types: string[];
    /** `{field}` takes a field of the event, `{subject}` the subject. An event without the field is not routed, and counted in `stats().skipped`. */
    topic: string;
    /** Type of the message. Absent: the event's own. The data is `{ event }`. */
    type?: string;
}
/** Options of the stream coordinator. */
interface StreamCoordinatorOptions {
    /** `store-sync:append:{subject}`, type `store.append`, data `{ subject, event }`. Default true. */
    enableStoreSync?: boolean;
    /**
     * `flow:event:{runId}`, type as the event, data `{ runId, flowName, event }`; and for terminal events and emits
     * `flow:trigger:{flowName}`, type `flow.trigger`, data `{ flowName, runId, cause, event }`. Default true.
     */
    enableFlowEvents?: boolean;
    /**
     * `client:flow:{runId}`, type `flow.event`, data `{ event }`; and when a run's status changes
     * `client:ui:flow:{flowName}`, type `ui.flow`, data `{ flowName, runId, status, ts }`. Default false.
     */
    enableClientMessages?: boolean;
    /** More channels, as rows of the same table. */
    channels?: ChannelDefinition[];
    /** Types that go to the flow channel. Default: flow.start, flow.completed, flow.failed, flow.cancel, flow.stalled, emit. */
    flowEventTypes?: string[];
    /** Names this instance: `metadata.instanceId` of the messages about events that it appended. Default: one per process. */
    instanceId?: string;
    /**
     * `at-least-once` follows the feed of a file or Redis store: after a crash, or an outage of the stream, it goes on after its
     * cursor, and no message is lost. A message may be published twice; `metadata.eventId` and `metadata.position` show that.
     * Events of other stores, and those that are only on the bus, are not routed.
     * `at-most-once` follows the bus: what waits when the process ends, or exceeds the limits, is lost.
     * On a Redis store several instances may run. Where the stream is a Redis stream (or {@link StreamAdapter.shared}) one of
     * them publishes for all; when it is gone another one takes over within 15 s. Elsewhere each publishes every event to its own.
     * Default: `at-least-once` where the store is a file or Redis store that announces on the coordinator's bus.
     */
    delivery?: 'at-least-once' | 'at-most-once';
    /**
     * Name of the cursor in the store, for which one coordinator at a time publishes. Coordinators with different channels need
     * different names. Where each instance publishes to a stream of its own, a number is added. Default `stream-coordinator`.
     */
    consumer?: string;
}
/** The coordinator's options, and what it connects. */
interface StreamCoordinatorParts extends StreamCoordinatorOptions {
    /** Where events come from. Absent: `getEventBus()`. Native, or any object with the same methods. */
    bus?: EventBus;
    /** Where messages go. Absent: the current stream. Native, or any object with the same methods. */
    stream?: StreamAdapter;
    /** Whose feed `delivery: 'at-least-once'` follows. Absent: the current store. */
    store?: StoreAdapter;
}
/** Counters of the stream coordinator. */
interface CoordinatorStats {
    /** Messages that the stream took, for each channel: `store-sync`, `flow`, `client`, and the names of your own. */
    routed: Record<string, number>;
    /** Times that a channel took an event but a field of its topic was missing. */
    skipped: number;
    /** Messages that the stream did not take. */
    failed: number;
    /** Events that wait or are under way. Bounded. */
    lag: number;
    /** Further counters. */
    [counter: string]: any;
}
/** A coordinator, as `createStreamCoordinator` returns it. */
interface StreamCoordinator extends Wiring {
    /** Stops it. */
    [Symbol.asyncDispose](): Promise<void>;
    /** Returns its counters. */
    stats(): CoordinatorStats;
}
/** Options of the registry. */
interface WiringRegistryOptions {
    /** Options of its coordinator. */
    streamCoordinator?: StreamCoordinatorOptions;
    /** Flows for its flow wiring. false: without it (nvent's own does it). */
    flow?: false | Pick<FlowWiringOptions, 'flows' | 'subjects'> & {
        /** How long the state of a run is kept after its end, in ms. Default 7 days. */
        keepState?: number;
    };
    /** Absent: what `createAdapters` or `setAdapters` made current. */
    store?: StoreAdapter;
    /** Absent: what `createAdapters` or `setAdapters` made current. */
    stream?: StreamAdapter;
    /** Absent: what `createAdapters` or `setAdapters` made current. */
    queue?: QueueAdapter;
    /** Absent: `getEventBus()`. */
    bus?: EventBus;
    /** More wirings: started after the built-in ones, stopped before them. */
    wirings?: Wiring[];
    /** What starts the flows, or a function that gives it, called at each start. They start last and stop first. */
    triggers?: TriggerDefinition[] | (() => TriggerDefinition[]);
    /** What events are sent to, or a function that gives it, called at each start. They start after the flows and stop before them. */
    webhooks?: WebhookDefinition[] | (() => WebhookDefinition[]);
}
/** The registry, as `createWiringRegistry` returns it. */
interface WiringRegistry extends Wiring {
    /** Stops it. */
    [Symbol.asyncDispose](): Promise<void>;
    /** Returns the counters of its wirings. */
    stats(): any;
    /** Its triggers, where it has the option. */
    readonly triggers?: TriggerWiring;
    /** Its webhooks, where it has the option. */
    readonly webhooks?: WebhookWiring;
}

/** The store in a configuration. Options of backends other than the chosen one have no effect. */
interface StoreConfig<Adapter extends 'memory' | 'file' | 'redis' = 'memory' | 'file' | 'redis'> extends Omit<RedisStoreOptions, 'bus' | 'connection'> {
    /** Which backend. Default `file`. */
    adapter?: Adapter;
    /** Options of the file store. `dataDir`: default `store` in `connections.file.dataDir`. */
    file?: Partial<Omit<FileStoreOptions, 'bus' | 'readOnly'>>;
    /** Where Redis is. What it leaves open is taken from `connections.redis`. */
    redis?: RedisConnection;
    /** Older name of `redis`. */
    connection?: RedisConnection;
}
/** The stream in a configuration. */
interface StreamConfig<Adapter extends 'memory' | 'redis' = 'memory' | 'redis'> extends Omit<RedisStreamOptions, 'connection' | 'retain'> {
    /** Which backend. Default `memory`. */
    adapter?: Adapter;
    /** Where Redis is. What it leaves open is taken from `connections.redis`. */
    redis?: RedisConnection;
    /** Older name of `redis`. */
    connection?: RedisConnection;
    /** Keeps what was published: {@link RedisStreamOptions.retain}. On Redis `topics` is needed; a memory stream keeps `maxLen` events of every topic. */
    retain?: Partial<NonNullable<RedisStreamOptions['retain']>>;
}
/** The queue in a configuration. */
interface QueueConfig<Adapter extends 'memory' | 'file' = 'memory' | 'file'> extends QueueOptions {
    /** Which backend. Default `file`. */
    adapter?: Adapter;
    /** Options of the file queue. `dataDir`: default `queue` in `connections.file.dataDir`. */
    file?: Partial<Omit<FileQueueOptions, 'defaultJobOptions'>>;
}
/** The `nvent` section of nuxt.config. Adapters are independent of each other. An unknown name or option rejects with NVENT_INVALID and says which are known. */
interface AdaptersConfig<Store extends 'memory' | 'file' | 'redis' = 'memory' | 'file' | 'redis', Stream extends 'memory' | 'redis' = 'memory' | 'redis', Queue extends 'memory' | 'file' = 'memory' | 'file'> {
    /** The store. Default: files in `.data/store`. */
    store?: StoreConfig<Store>;
    /** The stream. Default: memory. */
    stream?: StreamConfig<Stream>;
    /** The queue. Default: files in `.data/queue`. */
    queue?: QueueConfig<Queue>;
    /** Shared by the adapters. */
    connections?: {
        /** Where Redis is. */
        redis?: RedisConnection;
        /** Where files are. */
        file?: {
            /** The folder that holds `store` and `queue`. Default `.data`. */
            dataDir?: string;
        };
    };
}
/** A configuration, or an object of the application for an adapter. */
interface AdaptersInput extends Pick<AdaptersConfig, 'connections'> {
    /** The store. */
    store?: AdaptersConfig['store'] | StoreAdapter;
    /** The stream. */
    stream?: AdaptersConfig['stream'] | StreamAdapter;
    /** The queue. */
    queue?: AdaptersConfig['queue'] | QueueAdapter;
}
/** What `createAdapters` opens. */
interface Adapters<Store extends StoreAdapter = StoreAdapter, Stream extends StreamAdapter = StreamAdapter, Queue extends QueueAdapter = QueueAdapter> {
    /** The store. */
    store: Store;
    /** The stream. */
    stream: Stream;
    /** The queue. */
    queue: Queue;
}

/**
 * What `code` of an error says. The message says what was wrong, where, and what to do.
 *
 * - `NVENT_INVALID`: an argument or option is not usable
 * - `NVENT_TYPE`: the stored value has another type
 * - `NVENT_NOT_FOUND`: the entry that the call needs is not there
 * - `NVENT_CONFLICT`: `expectedLastId` did not hold
 * - `NVENT_CLOSED`: used after close
 * - `NVENT_LOCKED`: another process holds the data directory; retryable
 * - `NVENT_CORRUPT`: the data directory, or a stored value, cannot be read
 * - `NVENT_UNAVAILABLE`: Redis cannot be reached; retryable
 * - `NVENT_IO`: the file system failed
 * - `NVENT_INTERNAL`: a defect of this package
 */
type ErrorCode = 'NVENT_INVALID' | 'NVENT_TYPE' | 'NVENT_NOT_FOUND' | 'NVENT_CONFLICT' | 'NVENT_CLOSED' | 'NVENT_LOCKED' | 'NVENT_CORRUPT' | 'NVENT_UNAVAILABLE' | 'NVENT_IO' | 'NVENT_INTERNAL';

/** Returns the event bus of this JavaScript environment, which all loaded copies of the package share. */
declare const getEventBus: () => NativeEventBus;
/** Creates an independent event bus. */
declare const createEventBus: () => NativeEventBus;

/** Every rejection of this package. */
declare class NventError extends Error {
    name: string;
    /** Stable; never changes its meaning. */
    readonly code: ErrorCode;
    /** Whether the same call may succeed later without a change to it. */
    readonly retryable: boolean;
    /** Whether the write may have been applied although it failed (sent to Redis, and not answered). */
    readonly maybeApplied: boolean;
    /** The operation that failed, such as `append`, where it is known. */
    readonly operation: string | undefined;
    constructor(code: ErrorCode, message: string, details?: {
        retryable?: boolean;
        maybeApplied?: boolean;
        operation?: string;
        cause?: unknown;
    });
}

/** The queue adapter of every backend. */
declare abstract class NventQueueAdapter implements QueueAdapter {
    private readonly backend;
    private readonly subscriptions;
    /** The subscription of each worker, by queue and name. */
    private readonly workers;
    /** Attempts whose handlers are running, by token. */
    private readonly attempts;
    private readonly warnings;
    private readonly endMetrics;
    private receivesCancellations;
    private readonly counters;
    /** Keeps the process alive while a worker with `keepAlive` is registered. */
    private keepAlive;
    /** Resolves when every enqueue made so far has settled. undefined: all have. */
    private enqueued;
    init(): Promise<void>;
    enqueue<Data = any>(queue: string, job: NewJob<Data>): Promise<string>;
    private add;
    schedule<Data = any>(queue: string, job: NewJob<Data>, opts?: ScheduleOptions): Promise<string>;
    getJob<Data = any, Result = any>(queue: string, id: string): Promise<Job<Data, Result> | null>;
    getJobs<Data = any, Result = any>(queue: string, query?: JobQuery): Promise<Array<Job<Data, Result>>>;
    getJobCounts(queue: string): Promise<Record<JobState, number>>;
    getScheduledJobs(queue: string): Promise<any[]>;
    removeScheduledJob(scheduleId: string): Promise<boolean>;
    removeJob(queue: string, jobId: string): Promise<boolean>;
    retryJob(queue: string, jobId: string): Promise<boolean>;
    health(): Promise<{
        ok: boolean;
        backend: string;
        detail?: string;
    }>;
    stats(): QueueStats;
    isPaused(queue: string): Promise<boolean>;
    pause(queue: string): Promise<void>;
    resume(queue: string): Promise<void>;
    on(queue: string, event: QueueEvent, listener: (payload: any) => void): () => void;
    registerWorker<Data = any, Result = any>(queue: string, jobName: string, handler: (job: RunningJob<Data, Result>, context: JobContext) => Promise<Result>, opts?: WorkerOptions): void;
    startProcessingQueue(queue: string): void;
    /** Calls {@link QueueAdapter.close}. */
    [Symbol.asyncDispose](): Promise<void>;
    close(): Promise<void>;
    /** Begins a job in a later turn: the enqueuer continues first. nvent creates the run of a flow only after it has enqueued its first step. */
    private begin;
    /** Runs a handler and commits its outcome. */
    private run;
    /** Aborts the signals of attempts that are to be given up. */
    private receiveCancellations;
    /** Subscribes to deliveries; returns a function that unsubscribes. */
    private subscribe;
    /** Makes a call that returns nothing. Throws a failure that is known at once, warns of a later one. */
    private later;
}
/** Queues in memory. */
declare class MemoryQueueAdapter extends NventQueueAdapter {
    constructor(opts?: QueueOptions);
}
/** Queues in a folder: jobs survive the process. One process at a time. */
declare class FileQueueAdapter extends NventQueueAdapter implements FileQueue {
    constructor(opts: FileQueueOptions);
    backup(path: string): Promise<void>;
    verify(): Promise<{
        ok: boolean;
        problems: string[];
    }>;
}

/** A store of any backend: both surfaces, over one native store. */
declare abstract class NventStoreAdapter implements StoreAdapter {
    private readonly backend;
    /** Where it announces what it appended. */
    readonly bus: EventBus | null;
    private readonly link;
    readonly stream: StoreAdapter['stream'];
    readonly kv: StoreAdapter['kv'];
    readonly index: StoreAdapter['index'];
    readonly feed: Feed;
    private readonly subscriptions;
    private readonly running;
    private readonly loops;
    private readonly warnings;
    private readonly endMetrics;
    init(): Promise<void>;
    close(): Promise<void>;
    health(): Promise<{
        ok: boolean;
        backend: 'memory' | 'file' | 'redis';
        detail?: string;
    }>;
    consume(name: string, handler: Parameters<StoreAdapter['consume']>[1], opts?: ConsumeOptions): Promise<Consumer>;
    subjects(pattern?: string, cursor?: string | null): Promise<SubjectPage>;
    consumers(): Promise<ListedConsumer[]>;
    parked(consumer: string, opts?: {
        limit?: number;
        after?: string;
    }): Promise<ParkedConsumerEvent[]>;
    replay(consumer: string, positions?: string[]): Promise<number>;
    deleteConsumer(name: string): Promise<boolean>;
    [Symbol.asyncDispose](): Promise<void>;
    /** Stops the consumers, so that their cursors are stored. A handler that does not end holds the store up for a while only. */
    private stopConsumers;
    stats(): StoreStats;
    private listen;
    append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>>;
    read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]>;
    subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription>;
    save(collection: string, id: string, doc: Record<string, any>): Promise<void>;
    get(collection: string, id: string): Promise<Record<string, any> | null>;
    list(collection: string, opts?: Parameters<StoreAdapter['list']>[1]): Promise<Array<{
        id: string;
        doc: any;
    }>>;
    delete(collection: string, id: string): Promise<void>;
    indexAdd(key: string, id: string, score: number, metadata?: Record<string, any>): Promise<void>;
    indexGet(key: string, id: string): Promise<IndexEntry | null>;
    indexRead(...args: Parameters<StoreAdapter['index']['read']>): Promise<IndexEntry[]>;
    indexUpdate(...args: Parameters<StoreAdapter['index']['update']>): Promise<boolean>;
    indexUpdateWithRetry(...args: Parameters<StoreAdapter['index']['updateWithRetry']>): Promise<void>;
    indexIncrement(...args: Parameters<StoreAdapter['index']['increment']>): Promise<number>;
}
/** A store in memory. Nothing outlives it. */
declare class MemoryStoreAdapter extends NventStoreAdapter {
    constructor(opts?: StoreOptions);
}
/** A store in a folder: embedded, durable, one process at a time. */
declare class FileStoreAdapter extends NventStoreAdapter implements FileStore {
    constructor(opts: FileStoreOptions);
    backup(path: string): Promise<void>;
    verify(): Promise<{
        ok: boolean;
        problems: string[];
    }>;
}

/** A stream of any backend, over one native stream. */
declare abstract class NventStreamAdapter implements StreamAdapter {
    private readonly backend;
    /** What ends each, by its id. */
    private readonly subscriptions;
    private readonly natives;
    private readonly sharing;
    private readonly loops;
    private readonly warnings;
    private delivered;
    private gaps;
    private readonly endMetrics;
    init(): Promise<void>;
    publish<const Type extends string>(topic: string, event: StreamEvent<Type>): Promise<void>;
    subscribe<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(topic: string, handler: (event: Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, topic: string) => unknown, opts?: SubscribeOptions<Filter, Shared>): Promise<SubscriptionHandle>;
    private subscribeAlone;
    private subscribeShared;
    private countDelivered;
    private readonly handlerFailed;
    messages<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(topic: string, opts?: MessagesOptions<Filter, Shared>): AsyncIterableIterator<Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, void, void> & AsyncDisposable;
    unsubscribe(handle: SubscriptionHandle): Promise<void>;
    private end;
    listTopics(): Promise<string[]>;
    getSubscriptionCount(topic: string): Promise<number>;
    shutdown(): Promise<void>;
    /** Calls {@link StreamAdapter.shutdown}. */
    [Symbol.asyncDispose](): Promise<void>;
    health(): Promise<{
        ok: boolean;
        backend: 'memory' | 'redis';
        detail?: string;
    }>;
    stats(): StreamStats;
}
/** Returns whether a message is a gap: some before it may be missing. */
declare const isStreamGap: (event: {
    type: string;
}) => event is StreamGap;
/** A stream in memory: a broker inside the process, one per adapter. */
declare class MemoryStreamAdapter extends NventStreamAdapter {
    constructor(opts?: MemoryStreamOptions);
}

/** A store on Redis, for apps that outgrow one machine: drop-in beside nvent's own. */
declare class RedisStoreAdapter extends NventStoreAdapter {
    constructor(opts?: RedisStoreOptions);
}
/** A stream on Redis: pub/sub, and Redis Streams for the topics that are retained. */
declare class RedisStreamAdapter extends NventStreamAdapter {
    constructor(opts?: RedisStreamOptions);
    /** Returns what a group failed at too often on a topic, oldest first. */
    parked(topic: string, group: string): Promise<ParkedEvent[]>;
    /** Publishes what is parked again, to all that are subscribed, and no longer keeps it as parked. Returns the number of events, at most 1,000 a call. */
    replayParked(topic: string, group: string): Promise<number>;
}

interface Stores {
    memory: MemoryStoreAdapter;
    file: FileStoreAdapter;
    redis: RedisStoreAdapter;
}
interface Streams {
    memory: MemoryStreamAdapter;
    redis: RedisStreamAdapter;
}
interface Queues {
    memory: MemoryQueueAdapter;
    file: FileQueueAdapter;
}
/**
 * Creates and opens adapters and makes them current. A store, stream or queue may also be an object of the application, such as
 * a queue on BullMQ: it is opened as the others are.
 */
declare function createAdapters<Store extends keyof Stores = 'file', Stream extends keyof Streams = 'memory', Queue extends keyof Queues = 'file'>(config?: AdaptersConfig<Store, Stream, Queue>): Promise<Adapters<Stores[Store], Streams[Stream], Queues[Queue]>>;
declare function createAdapters(config: AdaptersInput): Promise<Adapters>;
declare function setAdapters(adapters: Partial<Adapters>): void;
declare const useStoreAdapter: () => StoreAdapter;
declare const useStreamAdapter: () => StreamAdapter;
declare const useQueueAdapter: () => QueueAdapter;
/**
 * Ends adapters, by default the current ones, and the wirings that use them: queues drain, wirings drain, then queues,
 * streams and stores close.
 */
declare function shutdownAdapters(adapters?: Partial<Adapters>): Promise<void>;
/**
 * Ends everything that is in use, in the order that loses nothing: queues drain, wirings drain, then queues, streams and
 * stores close. That is the current adapters, every running wiring, and the adapters of these wirings.
 */
declare function shutdown(): Promise<void>;

/**
 * Defines a flow whose steps are functions. The step without `subscribes` is the entry.
 *
 * Throws NVENT_INVALID where there is no entry or more than one, where a step subscribes to something that no step emits,
 * and where steps only wait for each other.
 */
declare function defineFlow<Input = any>(id: string, steps: Record<string, StepOptions>): Flow<Input>;

/** Returns the flows of the registries that run in this process. */
declare function listFlows(): ListedFlow[];
/** Resolves with the state of a run after the events of its log up to `until`: what flow wiring decided by at that moment. */
declare function runState(flow: string, runId: string, opts?: RunStateOptions): Promise<RunSnapshot>;

declare function streamRun(runId: string, request: Request, opts?: RunStreamOptions): Promise<Response>;

declare function startFlow<Input = any>(flow: Flow<Input> | string, input: Input, opts?: {
    runId?: string;
}): Promise<FlowRun>;
declare function cancelFlow(flow: Flow | string, runId: string, reason?: string): Promise<boolean>;
declare function retryRun(flow: Flow | string, runId: string): Promise<boolean>;
declare function deleteRun(flow: Flow | string, runId: string): Promise<boolean>;

/**
 * Returns the numbers of every adapter and wiring in use as Prometheus text (version 0.0.4), for `GET /metrics`. Nothing is
 * read from a disk or a server for it but the size of the files. Counters and gauges are those of this JavaScript environment
 * (the main thread, or a worker thread), what the core measures itself (durations, jobs by state) is the whole process's.
 */
declare function metrics(): string;

declare function createTriggerWiring(opts: TriggerWiringOptions): TriggerWiring;

declare function createWebhookWiring(opts: WebhookWiringOptions): WebhookWiring;

/**
 * Fires a trigger by a signed request, as Standard Webhooks has it, and resolves with the response: 202 when the cause is
 * stored, which then fires whatever happens. 401 where the signature, the time or a header is wrong, without more; 409 for a `webhook-id`
 * that was accepted before, so nothing is missing; 413 for more than 1 MB; 404 for a trigger that is not there or disabled; 405
 * for what is no POST; 400 for a body that no store takes; 503 while the store cannot be reached.
 *
 * The data is the body's JSON, or its text where it has none. Finds the trigger among those that are started in this process.
 */
declare function handleWebhook(trigger: string, request: Request): Promise<Response>;

declare function createStreamCoordinator(opts?: StreamCoordinatorParts): StreamCoordinator;
declare function createFlowWiring(opts?: FlowWiringOptions): FlowWiring;
declare function createWiringRegistry(opts?: WiringRegistryOptions): WiringRegistry;

export { FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, NventError, RedisStoreAdapter, RedisStreamAdapter, cancelFlow, createAdapters, createEventBus, createFlowWiring, createStreamCoordinator, createTriggerWiring, createWebhookWiring, createWiringRegistry, defineFlow, deleteRun, getEventBus, handleWebhook, isStreamGap, listFlows, metrics, retryRun, runState, setAdapters, shutdown, shutdownAdapters, startFlow, streamRun, useQueueAdapter, useStoreAdapter, useStreamAdapter };
export type { Adapters, AdaptersConfig, AdaptersInput, AppendOptions, BusEvent, BusStats, ChannelDefinition, ConsumeOptions, Consumer, ConsumerContext, ConsumerStats, CoordinatorStats, Delivered, Durability, ErrorCode, EventBus, EventData, EventFields, EventIterateOptions, EventReadOptions, EventRecord, EventStreams, EventSubscription, Feed, FeedEntry, FeedIterateOptions, FeedReadOptions, FileQueue, FileQueueOptions, FileStore, FileStoreOptions, FilteredType, Flow, FlowDefinition, FlowRun, FlowStats, FlowSubjects, FlowWiring, FlowWiringOptions, Frozen, Health, IndexEntry, IndexReadOptions, IndexUpdateOptions, Indexes, Job, JobContext, JobOptions, JobQuery, JobState, KeepJobs, KeyValues, ListOptions, ListedConsumer, ListedFlow, ListedTrigger, MemoryStreamOptions, MessagesOptions, NativeEventBus, NewEvent, NewJob, NventEvents, ParkedConsumerEvent, ParkedEvent, QueueAdapter, QueueConfig, QueueEvent, QueueOptions, QueueStats, RedisConnection, RedisStoreOptions, RedisStreamOptions, Retention, RunEnd, RunSnapshot, RunStateOptions, RunStreamOptions, RunningJob, ScheduleOptions, StepContext, StepOptions, StepSnapshot, StoreAdapter, StoreConfig, StoreOptions, StoreStats, StoredFields, StreamAdapter, StreamConfig, StreamCoordinator, StreamCoordinatorOptions, StreamCoordinatorParts, StreamEvent, StreamGap, StreamStats, SubjectPage, SubscribeOptions, SubscriptionHandle, TriggerCause, TriggerDefinition, TriggerKind, TriggerStats, TriggerWiring, TriggerWiringOptions, WebhookDefinition, WebhookDelivery, WebhookDeliveryState, WebhookStats, WebhookWiring, WebhookWiringOptions, Wiring, WiringRegistry, WiringRegistryOptions, WithData, WorkerOptions };
