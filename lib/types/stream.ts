import type { EventData } from './events'
import type { RedisConnection } from './redis'
import type { Health } from './store'

/** A message. Further fields are passed on as they came. */
export interface StreamEvent<Type extends string = string> {
  /** What a `filter` is matched against. */
  type: Type
  /** The payload: any JSON value. */
  data: EventData<Type>
  /** About the message: `instanceId` of who appended the event in what the coordinator routes. */
  metadata?: Record<string, any>
  /** When it was sent: Unix time in milliseconds. */
  timestamp?: number
}

/**
 * Delivered to a subscriber when events may have been missed: flush the cache, or catch up. It passes every filter.
 * {@link isStreamGap} distinguishes it from a message.
 */
export interface StreamGap extends StreamEvent<'stream.gap'> {
  /**
   * Why, where, and how many where that is known. `reconnect`: the connection to Redis was lost. `overflow`: the subscriber's
   * buffer was full. `publish-failed`: the stream coordinator could not publish. `trimmed`: Redis had removed retained events, or
   * a file or Redis store had removed events before the coordinator published them.
   */
  data: { reason: 'reconnect' | 'overflow' | 'publish-failed' | 'trimmed', topic: string, missed?: number }
}

/** The type of messages that a `filter` lets through: itself, where it is no glob. */
export type FilteredType<Filter> = Filter extends string ? Filter extends `${string}${'*' | '?' | '[' | '\\'}${string}` ? string : Filter : string

/** A value that none of its readers can change. */
export type Frozen<T> = T extends object ? { readonly [Key in keyof T]: Frozen<T[Key]> } : T

/** What a handler is given: an object of its own, or with `shared` a frozen one. */
export type Delivered<Message, Shared extends boolean> = Shared extends true ? Frozen<Message> : Message

/** Options of a subscription. */
export interface SubscribeOptions<Filter extends string | RegExp = string | RegExp, Shared extends boolean = boolean> {
  /**
   * Exactly one member of a group gets each event. On Redis the topic must be retained; NVENT_INVALID otherwise. There an
   * event whose handler failed is delivered again, and parked after five times: see `RedisStreamAdapter.parked`.
   */
  group?: string
  /**
   * Which types are delivered, matched natively. A string is a glob. A RegExp means what `test` with `lastIndex` 0 means, in
   * linear time; look-around, back-references, modifiers and classes of strings are NVENT_INVALID. Absent: all.
   */
  filter?: Filter
  /** First everything retained, then live, without hole or duplicate. The topic must be retained; NVENT_INVALID otherwise. Default false. */
  fromBeginning?: boolean
  /** Leave out what this adapter published itself. Default false. With `group`: NVENT_INVALID, as an event that goes to one member would be lost. */
  ignoreOwn?: boolean
  /** Events that may wait for this subscriber. Default 10,000. */
  buffer?: number
  /** When the buffer is full: drop the oldest (default) or the newest, and report a gap; or let publishers wait. */
  overflow?: 'drop-oldest' | 'drop-newest' | 'block'
  /**
   * The handler gets the same object as other subscriptions with `shared`, deeply frozen, and none of its own: with many subscribers
   * of one topic that is most of the time. Those of one topic with the same options share one native subscription; one that joins
   * may also get what was published just before. Default false.
   */
  shared?: Shared
}

/** Options of a loop over messages. */
export interface MessagesOptions<Filter extends string | RegExp = string | RegExp, Shared extends boolean = boolean> extends SubscribeOptions<Filter, Shared> {
  /** Ends the loop with an `AbortError` when it is aborted. */
  signal?: AbortSignal
}

/** A subscription to a topic. */
export interface SubscriptionHandle {
  /** Names the subscription within its adapter. */
  id: string
  /** The topic, or the glob, that was subscribed to. */
  topic: string
  /** Ends it. After it resolves the handler is not called again. Needs no `this`; calling it twice is fine. */
  unsubscribe: () => Promise<void>
  /** Calls {@link SubscriptionHandle.unsubscribe}. */
  [Symbol.asyncDispose]: () => Promise<void>
}

/** Counters of a stream since it was made. */
export interface StreamStats {
  /** Events that the broker took from this adapter. */
  published: number
  /** Events handed to handlers. */
  delivered: number
  /** Events that overflowed a buffer. */
  dropped: number
  /** Gaps reported to handlers. */
  gaps: number
  /** Handlers that threw or rejected. The first is reported as a process warning. */
  handlerErrors: number
  /** Connections made again after an outage. */
  reconnects: number
  /** Counters of the backend. */
  [counter: string]: number
}

/** Pure delivery: it knows no store. */
export interface StreamAdapter {
  /**
   * Set by an application's own stream that reaches the subscribers of every process: on a Redis store one instance then
   * publishes for all. Otherwise each instance publishes every event of the store to its own stream.
   */
  readonly shared?: boolean
  /** Opens the stream. Idempotent; every other method opens it on first use as well. */
  init(): Promise<void>
  /** Sends any JSON object, whole. Resolves when the broker has it; a failing handler never fails a publish. */
  publish<const Type extends string>(topic: string, event: StreamEvent<Type>): Promise<void>
  /** Calls `handler` with what is published to a topic, or to every topic that a Redis glob matches (`*` crosses colons). */
  subscribe<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(
    topic: string, handler: (event: Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, topic: string) => unknown, opts?: SubscribeOptions<Filter, Shared>,
  ): Promise<SubscriptionHandle>
  /**
   * Iterates over messages: {@link StreamAdapter.subscribe} for `for await`. The subscription begins with this call (on Redis when the
   * broker has it). While the loop is busy up to 256 messages wait for it, then the subscription's `buffer`, then its `overflow`
   * applies, and a gap reports it. In a `group` a message counts as handled when the next one is asked for; leaving the loop hands
   * the last one back as failed. Ends when the loop is left or the stream is shut down. Keeps no process alive.
   */
  messages<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(
    topic: string, opts?: MessagesOptions<Filter, Shared>,
  ): AsyncIterableIterator<Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, void, void> & AsyncDisposable
  /** Ends a subscription. After it resolves the handler is not called again. */
  unsubscribe(handle: SubscriptionHandle): Promise<void>
  /** Returns the topics and globs that handlers of this adapter are subscribed to, each once. */
  listTopics(): Promise<string[]>
  /** Returns the number of handlers of this adapter that are subscribed to exactly this topic or glob. */
  getSubscriptionCount(topic: string): Promise<number>
  /** Ends every subscription and closes the stream. Idempotent; later calls reject with NVENT_CLOSED. */
  shutdown(): Promise<void>
  /** Asks the broker. Does not reject because it is down. */
  health(): Promise<Health<'memory' | 'redis'>>
  /** Returns its counters. */
  stats(): StreamStats
}

/** Options of {@link MemoryStreamAdapter}. */
export interface MemoryStreamOptions {
  /** Keep what was published, so that `fromBeginning` works. Absent: nothing is kept. */
  retain?: {
    /** Events kept for each topic. */
    maxEvents?: number
    /** How long an event is kept, in milliseconds. */
    maxAgeMs?: number
  }
}

/** Options of {@link RedisStreamAdapter}. */
export interface RedisStreamOptions {
  /** Default: `127.0.0.1:6379`. */
  connection?: RedisConnection
  /** What the keys of retained topics begin with; channels are named as their topic. Default `nvent`. */
  prefix?: string
  /** Topics (globs) that are also kept in a Redis Stream, so that `fromBeginning`, `group` and catching up after a gap work on them. */
  retain?: {
    /** Which topics. */
    topics: string[]
    /** Events kept for each topic. */
    maxLen?: number
  }
}

/** An event that a group failed at too often. */
export interface ParkedEvent {
  /** Its id in the retained topic. */
  id: string
  /** How often it was delivered. */
  deliveries: number
  /** The event, as it was published. */
  event: StreamEvent
}
