import type { EventRecord } from './events'

/** An event with its place in the feed. */
export interface FeedEntry {
  /** Where it is. Positions are only compared by the store that gave them. */
  position: string
  /** Where it was stored. */
  subject: string
  /** The record. */
  event: EventRecord
}

/** Options of reading the feed. */
export interface FeedReadOptions {
  /** Only events after this position. Absent: from the beginning. */
  after?: string
  /** At most so many. Default 1,000. A page ends earlier where it has 32 MB. An empty page: there is nothing more. */
  limit?: number
  /** Globs of subjects. Absent: every subject. */
  subjects?: string | string[]
  /** Globs of types. Absent: every type. */
  types?: string | string[]
}

/** Options of a loop over the feed. */
export interface FeedIterateOptions extends Omit<FeedReadOptions, 'limit'> {
  /** Ends the loop with an `AbortError` when it is aborted. */
  signal?: AbortSignal
}

/** All events of a store in one order. */
export interface Feed {
  /** Resolves with a page of events. Go on after the position of its last one. */
  read(opts?: FeedReadOptions): Promise<FeedEntry[]>
  /**
   * Iterates over the feed, from its beginning or after a position, and waits for more. It is read in pages, so that a slow loop
   * loses nothing but what retention or trimming removes before it is read; {@link StoreAdapter.consume} reports that, and keeps
   * its place. Ends when the loop is left or the store is closed. Keeps no process alive.
   */
  iterate(opts?: FeedIterateOptions): AsyncIterableIterator<FeedEntry, void, void> & AsyncDisposable
  /** Resolves with the newest position, or null where nothing was ever stored. */
  head(): Promise<string | null>
}

/** Options of a durable consumer. */
export interface ConsumeOptions {
  /** Globs of subjects; both these and `types` must match. Absent: every subject. */
  subjects?: string | string[]
  /** Globs of types. Absent: every type. */
  types?: string | string[]
  /** Where a consumer of a new name begins. Default 'now'. A known name always goes on after its cursor. */
  from?: 'beginning' | 'now' | { position: string }
  /** Deliveries before an event is parked. Default 5. */
  attempts?: number
  /** Pause before the next delivery, in ms. Default: exponential from 200 ms to 30 s. */
  backoff?: number | { type: 'fixed' | 'exponential', delay: number, maxDelay?: number }
  /** Subjects handled at a time; events of one subject stay in order. Default 1: everything in the order of the feed. */
  concurrency?: number
  /** Stops the consumer when it is aborted. */
  signal?: AbortSignal
}

/** What the handler of a consumer is given beside the event. */
export interface ConsumerContext {
  /** Where the event was stored. */
  subject: string
  /** Where it is in the feed. */
  position: string
  /** Which delivery this is, from 1. */
  attempt: number
  /** Aborted when the consumer stops, or another process takes over. */
  signal: AbortSignal
}

/** An event that a consumer has failed at too often. */
export interface ParkedConsumerEvent extends FeedEntry {
  /** Deliveries so far. */
  attempts: number
  /** The last error. */
  reason: string
  /** When it was parked: Unix time in milliseconds. */
  parkedAt: number
}

/** Counters of a consumer. */
export interface ConsumerStats {
  /** Every event up to here was handled or parked. null: none yet. */
  position: string | null
  /** Events stored after that position, whether or not its globs match them. */
  lag: number
  /** Events handled by this process. */
  delivered: number
  /** Deliveries that failed in this process. */
  failed: number
  /** Its parked events. */
  parked: number
  /** Whether it is at work in this process. Otherwise it stands by. */
  active: boolean
}

/** A durable consumer, as `store.consume` returns it. */
export interface Consumer {
  /** Its name. */
  readonly name: string
  /** Returns its counters. */
  stats(): ConsumerStats
  /** Returns the events that it has failed at too often, in the order of the feed. `limit`: default 100. */
  parked(opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]>
  /** Delivers parked events again: these, or all. Resolves with their number when each was handled or is parked again. */
  replay(positions?: string[]): Promise<number>
  /** Waits for the handler at work, stores the cursor and stops. */
  stop(): Promise<void>
  /** Calls {@link Consumer.stop}. */
  [Symbol.asyncDispose](): Promise<void>
}

/** A consumer in the list of a store. */
export interface ListedConsumer {
  /** Its name. */
  name: string
  /** Every event up to here was handled or parked. null: none yet. */
  position: string | null
  /** Events stored after that position. */
  lag: number
  /** Its parked events. */
  parked: number
}
