import { finite, options, text } from './check'
import { debug } from './debug'
import { invalid, messageOf } from './errors'
import { registerWeakly } from './metrics/registry'
import { CONSUMER } from './metrics/tables'
import { addon, bridge, call, callSync, registerTarget, releaseTarget } from './native'
import type { NativeConsumer, NativeStore } from './native'
import { maybeInSpan, messaging } from './trace'
import type { ConsumeOptions, Consumer, ConsumerContext, ConsumerStats, EventRecord, FeedEntry, FeedReadOptions, ParkedConsumerEvent } from './types'

const CONSUME = {
  subjects: ['string', 'array'], types: ['string', 'array'], from: ['string', 'object'], attempts: 'number', backoff: ['number', 'object'],
  concurrency: 'number', signal: 'object',
} as const
const FEED_READ = { after: 'string', limit: 'number', subjects: ['string', 'array'], types: ['string', 'array'] } as const

const DEFAULT_PAGE = 1_000
const DEFAULT_PARKED = 100
const DEFAULT_ATTEMPTS = 5
const FIRST_DELAY = 200
const MAX_DELAY = 30_000
const DAY = 86_400_000

function whole(what: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(finite(what, value)) || value < min || value > max) {
    throw invalid(`${what}: expected a whole number from ${min} to ${max}, got ${value}`)
  }
  return value
}

function globs(what: string, value: string | string[] | undefined): string[] {
  if (value === undefined) return []
  return [value].flat().map((glob, i) => text(Array.isArray(value) ? `${what}[${i}]` : what, glob))
}

/** Reads a page of the feed of a store. */
export async function readFeed(native: NativeStore, opts: FeedReadOptions | undefined): Promise<FeedEntry[]> {
  const { after, limit = DEFAULT_PAGE, subjects, types } = options('options', opts, FEED_READ as any)
  whole('options.limit', limit, 0, Number.MAX_SAFE_INTEGER)
  return call(() => native.feedRead(after ?? null, limit, globs('options.subjects', subjects), globs('options.types', types)))
}

/** Reads a page of parked events. */
export async function readParked(
  opts: { limit?: number, after?: string } | undefined, read: (after: string | null, limit: number) => ReturnType<NativeConsumer['parked']>,
): Promise<ParkedConsumerEvent[]> {
  const { limit = DEFAULT_PARKED, after } = options('options', opts, { limit: 'number', after: 'string' })
  whole('options.limit', limit, 0, Number.MAX_SAFE_INTEGER)
  return call(() => read(after ?? null, limit))
}

/** Requests a replay of parked events. */
export async function requestReplay(
  positions: string[] | undefined, replay: (positions: string[] | undefined) => ReturnType<NativeConsumer['replay']>,
): Promise<number> {
  if (positions !== undefined && !Array.isArray(positions)) throw invalid('positions: expected an array of positions')
  positions?.forEach((position, i) => text(`positions[${i}]`, position))
  return call(() => replay(positions))
}

function startAt(from: unknown): unknown {
  if (from === undefined || from === 'now') return 'now'
  if (from === 'beginning') return 'beginning'
  if (typeof from === 'object') {
    const { position } = options('options.from', from, { position: 'string' })
    if (position === undefined) throw invalid('options.from.position is required')
    return { position }
  }
  throw invalid(`options.from: ${JSON.stringify(from)} is not known; 'beginning', 'now' and { position } are`)
}

function retryDelay(backoff: unknown): { delay: number, maxDelay?: number } {
  if (backoff === undefined) return { delay: FIRST_DELAY, maxDelay: MAX_DELAY }
  if (typeof backoff === 'number') return { delay: whole('options.backoff', backoff, 0, DAY) }
  const { type, delay = FIRST_DELAY, maxDelay } = options('options.backoff', backoff, { type: 'string', delay: 'number', maxDelay: 'number' })
  if (type !== 'fixed' && type !== 'exponential') throw invalid(`options.backoff.type: expected 'fixed' or 'exponential', got ${JSON.stringify(type)}`)
  whole('options.backoff.delay', delay, 0, DAY)
  if (maxDelay !== undefined) whole('options.backoff.maxDelay', maxDelay, 0, DAY)
  if (type === 'fixed') return { delay }
  return { delay, maxDelay: maxDelay ?? Math.max(delay, MAX_DELAY) }
}

type Handler = (event: EventRecord, context: ConsumerContext) => unknown
type Row = [subject: string, position: string, attempt: number, event: EventRecord]

/** A durable consumer of a native store. */
export class NventConsumer implements Consumer {
  private readonly native: NativeConsumer
  private readonly target: number
  private readonly batches = new Map<number, AbortController>()
  private stopped: Promise<void> | undefined
  private endMetrics: (() => void) | undefined
  private readonly onAbort = (): void => void this.stop().catch(this.failed)

  private constructor(
    readonly name: string, store: NativeStore, private readonly handler: Handler, settings: string,
    private readonly signal: AbortSignal | undefined, private readonly failed: (error: unknown) => void, private readonly onStop: (consumer: NventConsumer) => void,
  ) {
    this.target = registerTarget({
      handle: (batch: number, missed: number | null, rows: Row[]) => this.handle(batch, missed, rows),
      stop: (batch: number) => this.batches.get(batch)?.abort(),
    })
    try {
      this.native = callSync(() => new addon.NativeConsumer(bridge, store, name, this.target, settings))
    }
    catch (error) {
      releaseTarget(this.target)
      throw error
    }
  }

  /** Starts a consumer; resolves when its cursor is stored. */
  static async start(
    store: NativeStore, name: string, handler: Handler, opts: ConsumeOptions | undefined,
    { backend, failed, onStop }: { backend: string, failed: (error: unknown) => void, onStop: (consumer: NventConsumer) => void },
  ): Promise<NventConsumer> {
    const { subjects, types, from, attempts = DEFAULT_ATTEMPTS, backoff, concurrency = 1, signal } = options('options', opts, CONSUME as any)
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid('options.signal: expected an AbortSignal')
    const settings = JSON.stringify({
      filter: { subjects: globs('options.subjects', subjects), types: globs('options.types', types) },
      from: startAt(from),
      attempts: whole('options.attempts', attempts, 1, 1_000_000),
      ...retryDelay(backoff),
      concurrency: whole('options.concurrency', concurrency, 1, 10_000),
    })
    signal?.throwIfAborted()
    const consumer = new NventConsumer(text('name', name), store, handler, settings, signal, failed, onStop)
    try {
      await call(() => consumer.native.start())
    }
    catch (error) {
      releaseTarget(consumer.target)
      throw error
    }
    if (signal?.aborted) {
      await consumer.stop()
      signal.throwIfAborted()
    }
    signal?.addEventListener('abort', consumer.onAbort, { once: true })
    debug('the consumer %s has started', name)
    consumer.endMetrics = registerWeakly(consumer, { metrics: CONSUMER, labels: { backend, consumer: name } }, one => one.stats())
    return consumer
  }

  stats(): ConsumerStats {
    return JSON.parse(callSync(() => this.native.stats()))
  }

  async parked(opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]> {
    return readParked(opts, (after, limit) => this.native.parked(after, limit))
  }

  async replay(positions?: string[]): Promise<number> {
    return requestReplay(positions, checked => this.native.replay(checked))
  }

  stop(): Promise<void> {
    return this.stopped ??= this.end()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  private async end(): Promise<void> {
    this.signal?.removeEventListener('abort', this.onAbort)
    try {
      await call(() => this.native.stop())
    }
    finally {
      this.endMetrics?.()
      debug('the consumer %s has stopped', this.name)
      releaseTarget(this.target)
      this.onStop(this)
    }
  }

  /** Handles the events of a batch in turn, up to the first that fails. */
  private async handle(batch: number, missed: number | null, rows: Row[]): Promise<{ handled: number, failure: string | null }> {
    const controller = new AbortController()
    const { signal } = controller
    this.batches.set(batch, controller)
    let handled = 0
    try {
      if (missed !== null) {
        const gap = { type: 'stream.gap', data: { reason: 'trimmed', topic: this.name, missed }, ts: Date.now(), id: '' }
        try {
          await this.handler(gap, { subject: '', position: '', attempt: 1, signal })
        }
        catch (error) {
          this.failed(error)
        }
      }
      for (const [subject, position, attempt, event] of rows) {
        if (signal.aborted) break
        try {
          await maybeInSpan(
            () => ({
              name: `process ${this.name}`, kind: 'CONSUMER', parent: event['traceparent'],
              attributes: { ...messaging('process', 'process', subject, { id: event.id, runId: event.runId }), 'messaging.consumer.group.name': this.name, 'nvent.event.type': event.type },
            }),
            () => this.handler(event, { subject, position, attempt, signal }),
          )
        }
        catch (error) {
          this.failed(error)
          return { handled, failure: messageOf(error) }
        }
        handled += 1
      }
      return { handled, failure: null }
    }
    finally {
      this.batches.delete(batch)
    }
  }
}
