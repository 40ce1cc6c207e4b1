import { options, text } from './check'
import { debug } from './debug'
import { invalid, messageOf } from './errors'
import { registerWeakly } from './metrics/registry'
import { CONSUMER } from './metrics/tables'
import { addon, bridge, call, callSync, registerTarget, releaseTarget } from './native'
import type { NativeConsumer, NativeStore } from './native'
import { consumeOptions, feedReadOptions, parkedOptions } from './options/store.js'
import { maybeInSpan, messaging } from './trace'
import type { ConsumeOptions, Consumer, ConsumerContext, ConsumerStats, EventRecord, FeedEntry, FeedReadOptions, ParkedConsumerEvent } from './types'

const globs = (value: string | string[] = []): string[] => [value].flat()

/** Reads a page of the feed of a store. */
export async function readFeed(native: NativeStore, opts: FeedReadOptions | undefined): Promise<FeedEntry[]> {
  const { after, limit, subjects, types } = options('options', opts, feedReadOptions)
  return call(() => native.feedRead(after ?? null, limit, globs(subjects), globs(types)))
}

/** Reads a page of parked events. */
export async function readParked(
  opts: { limit?: number, after?: string } | undefined, read: (after: string | null, limit: number) => ReturnType<NativeConsumer['parked']>,
): Promise<ParkedConsumerEvent[]> {
  const { limit, after } = options('options', opts, parkedOptions)
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
    const { subjects, types, from = 'now', attempts, backoff, concurrency, signal } = options('options', opts, consumeOptions)
    const settings = JSON.stringify({
      filter: { subjects: globs(subjects), types: globs(types) },
      from,
      attempts,
      backoff: typeof backoff === 'number' ? { type: 'fixed', delay: backoff } : backoff,
      concurrency,
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
