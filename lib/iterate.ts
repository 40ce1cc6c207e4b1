import { callback, options, text } from './check'
import { NventError } from './errors'
import { literal } from './glob'
import { feedIterateOptions, iterateOptions } from './options/store.js'
import type { EventIterateOptions, EventReadOptions, EventRecord, Feed, FeedEntry, FeedIterateOptions, SubscriptionHandle } from './types'

/** Events that are read at a time, and messages that wait for a loop before the subscription's own buffer fills. */
const PAGE = 256
/** Pause before a read that failed because of an outage is tried again, in ms. */
const RETRY_DELAY = 1_000

/** Where the values of a loop come from. */
interface Source<T> {
  /** Yields values until `loop.over`. */
  values(loop: Iteration<T>): AsyncGenerator<T, void, void>
  /** Releases what the loop holds. */
  stop(): Promise<void>
}

/** Returns the error for a loop whose signal was aborted, as `events.on` of Node throws it. */
function abortError(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason })
  error.name = 'AbortError'
  return Object.assign(error, { code: 'ABORT_ERR' })
}

/** An asynchronous iterator that ends when its loop is left, its signal is aborted or its adapter is closed. */
export class Iteration<T> implements AsyncIterableIterator<T, void, void> {
  private readonly values: AsyncGenerator<T, void, void>
  private stopped: Promise<void> | undefined
  private reported = false
  private isWoken = false
  private resume: (() => void) | undefined
  private readonly onAbort = (): void => void this.end()

  constructor(private readonly owner: Set<Iteration<any>>, private readonly signal: AbortSignal | undefined, private readonly source: Source<T>) {
    this.values = source.values(this)
    owner.add(this)
    if (signal?.aborted) void this.end()
    else signal?.addEventListener('abort', this.onAbort, { once: true })
  }

  /** Returns whether no further value is wanted. */
  get over(): boolean {
    return this.stopped !== undefined
  }

  /** Makes `wait` return. */
  wake(): void {
    this.isWoken = true
    this.resume?.()
  }

  /** Forgets the calls of `wake` so far. */
  reset(): void {
    this.isWoken = false
  }

  /** Waits for a call of `wake`, or the end. */
  async wait(): Promise<void> {
    if (!this.isWoken && !this.over) await new Promise<void>(resolve => this.resume = resolve)
    this.resume = undefined
    this.isWoken = false
  }

  /** Ends it. Never rejects: an adapter that is closed has released everything. */
  end(): Promise<void> {
    if (!this.stopped) {
      this.stopped = Promise.resolve().then(() => this.source.stop()).catch(() => {})
      this.signal?.removeEventListener('abort', this.onAbort)
      this.owner.delete(this)
      this.wake()
    }
    return this.stopped
  }

  async next(): Promise<IteratorResult<T, void>> {
    let result: IteratorResult<T, void> | undefined
    try {
      result = await this.values.next()
    }
    catch (error) {
      // What was under way fails where the adapter was closed, or the signal aborted: that is an end, not an error.
      if (!this.over) {
        await this.end()
        throw error
      }
    }
    if (this.over || result === undefined || result.done) {
      await this.end()
      if (this.signal?.aborted && !this.reported) {
        this.reported = true
        throw abortError(this.signal)
      }
      return { done: true, value: undefined }
    }
    return result
  }

  async return(): Promise<IteratorResult<T, void>> {
    this.reported = true
    await this.end()
    await this.values.return()
    return { done: true, value: undefined }
  }

  async throw(error: unknown): Promise<IteratorResult<T, void>> {
    await this.return()
    throw error
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }
}

type Subscribe = (glob: string, wake: () => void) => Promise<{ unsubscribe: () => Promise<void> }>

/**
 * Follows a log: reads pages of it, and waits for a subscription to announce more. What was not read yet stays in the store, so
 * that a slow loop loses nothing and holds one page.
 */
function follow<T>(
  owner: Set<Iteration<any>>, signal: AbortSignal | undefined, subscribe: Subscribe, globs: string[], start: () => Promise<void>, read: () => Promise<T[]>,
): Iteration<T> {
  let wake = (): void => {}
  // The subscriptions come first: what is stored after the position is taken is read, or announced.
  const subscriptions = signal?.aborted ? [] : globs.map(glob => subscribe(glob, () => wake()))
  const started = Promise.all([...subscriptions, signal?.aborted ? undefined : start()])
  started.catch(() => {})
  return new Iteration<T>(owner, signal, {
    async* values(loop) {
      wake = () => loop.wake()
      await started
      while (!loop.over) {
        loop.reset()
        let page: T[] = []
        try {
          page = await read()
        }
        catch (error) {
          if (loop.over) return
          if (!(error instanceof NventError) || error.code !== 'NVENT_UNAVAILABLE') throw error
          setTimeout(wake, RETRY_DELAY).unref()
        }
        yield* page
        if (page.length === 0) await loop.wait()
      }
    },
    async stop() {
      for (const subscription of await Promise.allSettled(subscriptions)) {
        if (subscription.status === 'fulfilled') await subscription.value.unsubscribe()
      }
    },
  })
}

/** Iterates over the events of a subject. */
export function iterateEvents(
  owner: Set<Iteration<any>>, subject: string, opts: EventIterateOptions | undefined, subscribe: Subscribe,
  read: (opts: EventReadOptions) => Promise<EventRecord[]>,
): AsyncIterableIterator<EventRecord, void, void> & AsyncDisposable {
  text('subject', subject)
  const { types, signal, after: first } = options('options', opts, iterateOptions)
  let after = first
  const start = async (): Promise<void> => {
    if (after === undefined) after = (await read({ order: 'desc', limit: 1 }))[0]?.id
  }
  return follow(owner, signal, subscribe, [literal(subject)], start, async () => {
    const page = await read({ limit: PAGE, ...after === undefined ? {} : { after }, ...types ? { types } : {} })
    after = page.at(-1)?.id ?? after
    return page
  })
}

/** Iterates over the feed of a store. */
export function iterateFeed(
  owner: Set<Iteration<any>>, opts: FeedIterateOptions | undefined, subscribe: Subscribe, feed: Pick<Feed, 'read' | 'head'>,
): AsyncIterableIterator<FeedEntry, void, void> & AsyncDisposable {
  const { signal, ...query } = options('options', opts, feedIterateOptions)
  const globs = query.subjects === undefined ? ['*'] : [query.subjects].flat()
  const isFiltered = query.subjects !== undefined || query.types !== undefined
  return follow(owner, signal, subscribe, globs, async () => {}, async () => {
    // Nothing up to the head was wanted: the next read begins there, not at the last event that was.
    const head = isFiltered ? await feed.head() : null
    const page = await feed.read({ ...query, limit: PAGE })
    const next = page.at(-1)?.position ?? head
    if (next !== null) query.after = next
    return page
  })
}

/** Why a message of a group is handed back: its loop was left before the next one was asked for. */
export const HANDED_BACK = new NventError('NVENT_CLOSED', 'the loop over messages was left')

/**
 * Iterates over messages. A few wait here; while they do, the subscription is paused, so that its own buffer fills and says what
 * it drops. In a group a message counts as handled when the next one is asked for.
 */
export function iterateMessages<T>(
  owner: Set<Iteration<any>>, signal: AbortSignal | undefined, isGroup: boolean,
  subscribe: (handler: (message: T) => Promise<void> | undefined) => Promise<SubscriptionHandle>,
): AsyncIterableIterator<T, void, void> & AsyncDisposable {
  const waiting: T[] = []
  const high = isGroup ? 1 : PAGE
  let wake = (): void => {}
  let settle: { resolve: () => void, reject: (error: unknown) => void } | undefined
  const release = (): void => {
    settle?.resolve()
    settle = undefined
  }
  const handler = callback('handler', (message: T): Promise<void> | undefined => {
    waiting.push(message)
    wake()
    return waiting.length < high ? undefined : new Promise<void>((resolve, reject) => settle = { resolve, reject })
  })
  const started = signal?.aborted ? undefined : subscribe(handler)
  started?.catch(() => {})
  return new Iteration<T>(owner, signal, {
    async* values(loop) {
      wake = () => loop.wake()
      await started
      while (!loop.over) {
        while (waiting.length > 0 && !loop.over) {
          yield waiting.shift()!
          if (waiting.length === 0) release()
        }
        await loop.wait()
      }
    },
    async stop() {
      waiting.length = 0
      const subscription = await started?.catch(() => undefined)
      if (isGroup) settle?.reject(HANDED_BACK)
      else release()
      await subscription?.unsubscribe()
    },
  })
}
