import { options, request as checkRequest, text } from '../check'
import { currentAdapter } from '../factory'
import { literal } from '../glob'
import { runStreamOptions } from '../options/wiring.js'
import type { EventRecord, EventSubscription, RunStreamOptions, StoreAdapter } from '../types'
import { END_TYPES, runtimes, TERMINAL_TYPES } from './runtime'

/** ms */
const HEARTBEAT_INTERVAL_MS = 15_000
/** Events read at a time: what one client may hold in memory. */
const PAGE = 100
const EVENT_ID = /^\d+-\d+$/

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  // nginx would collect events otherwise.
  'x-accel-buffering': 'no',
}

/** One store subscription for all clients of a subject. */
class Watch {
  private static readonly all = new Map<StoreAdapter, Map<string, Watch>>()
  private readonly wakers = new Set<() => void>()
  private readonly subscription: Promise<EventSubscription>

  private constructor(private readonly store: StoreAdapter, private readonly subject: string) {
    this.subscription = store.stream.subscribe(literal(subject), () => {
      for (const wake of this.wakers) wake()
    })
  }

  /** Calls `wake` after each append, from when the promise has resolved until the returned function is called. */
  static async on(store: StoreAdapter, subject: string, wake: () => void): Promise<() => void> {
    const watches = Watch.all.get(store) ?? new Map<string, Watch>()
    Watch.all.set(store, watches)
    const watch = watches.get(subject) ?? new Watch(store, subject)
    watches.set(subject, watch)
    watch.wakers.add(wake)
    const off = (): void => watch.remove(wake)
    try {
      await watch.subscription
    }
    catch (error) {
      off()
      throw error
    }
    return off
  }

  private remove(wake: () => void): void {
    this.wakers.delete(wake)
    if (this.wakers.size > 0) return
    const watches = Watch.all.get(this.store)
    if (watches?.get(this.subject) !== this) return
    watches.delete(this.subject)
    if (watches.size === 0) Watch.all.delete(this.store)
    // A store that was closed has ended its subscriptions.
    this.subscription.then(({ unsubscribe }) => unsubscribe()).catch(() => {})
  }
}

/** Returns the subject of a run as the running registry has it. */
function subjectOf(runId: string): string {
  for (const runtime of runtimes) {
    if (!runtime.subjects.run.includes('{flowName}')) return runtime.subject('', runId)
  }
  return `nq:flow:${runId}`
}

export async function streamRun(runId: string, request: Request, opts?: RunStreamOptions): Promise<Response> {
  text('runId', runId)
  checkRequest('request', request)
  const { store = currentAdapter('store'), subject = subjectOf(runId) } = options('options', opts, runStreamOptions)
  const lastId = request.headers.get('last-event-id') ?? new URL(request.url).searchParams.get('lastEventId') ?? undefined
  if (lastId !== undefined && lastId !== '' && !EVENT_ID.test(lastId)) {
    return new Response('Last-Event-ID is no event id\n', { status: 400 })
  }
  const reader = new RunReader(store, subject, lastId || undefined)
  // 204 ends the attempts of an EventSource to reconnect.
  if (await reader.isOver()) return new Response(null, { status: 204 })
  return new Response(streamOf(reader, request), { headers: HEADERS })
}

/** Reads a run's log from a position. The log is the buffer: a client holds a page of it at most. */
class RunReader {
  private changed = true
  private waiting: (() => void) | undefined
  private off: (() => void) | undefined
  private ended = false

  constructor(private readonly store: StoreAdapter, private readonly subject: string, private after: string | undefined) {}

  /** Returns whether the run has ended and nothing comes after the position. */
  async isOver(): Promise<boolean> {
    const [last] = await this.store.stream.read(this.subject, { types: END_TYPES, order: 'desc', limit: 1 })
    if (!last || !TERMINAL_TYPES.includes(last.type)) return false
    const rest = await this.store.stream.read(this.subject, { limit: 1, ...this.after === undefined ? {} : { after: this.after } })
    return rest.length === 0
  }

  /** Resolves with the next events, an empty list when woken by `stop`, null after the end of the run. */
  async next(): Promise<EventRecord[] | null> {
    // Subscribed before the first read, so that no event falls between the two.
    if (!this.off) {
      const off = await Watch.on(this.store, this.subject, this.wake)
      // The client may have gone meanwhile.
      if (this.ended) off()
      else this.off = off
    }
    while (!this.ended) {
      if (!this.changed) await new Promise<void>(resolve => this.waiting = resolve)
      if (this.ended) break
      this.changed = false
      const events = await this.store.stream.read(this.subject, { limit: PAGE, ...this.after === undefined ? {} : { after: this.after } })
      if (events.length === 0) {
        if (this.after !== undefined && await this.isOver()) return null
        continue
      }
      this.after = events.at(-1)!.id
      this.changed = true
      return events
    }
    return []
  }

  stop(): void {
    this.ended = true
    this.off?.()
    this.wake()
  }

  private readonly wake = (): void => {
    this.changed = true
    this.waiting?.()
  }
}

/** Holds the request, not its signal: a signal whose request was collected is not aborted with the one that it follows. */
function streamOf(reader: RunReader, request: Request): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  let heartbeat: NodeJS.Timeout | undefined
  let close = (): void => {}
  const release = (): void => {
    clearInterval(heartbeat)
    request.signal?.removeEventListener('abort', close)
    reader.stop()
  }
  return new ReadableStream<Uint8Array>({
    start(controller) {
      close = () => {
        release()
        try {
          controller.close()
        }
        catch {
          // The client has gone already.
        }
      }
      request.signal?.addEventListener('abort', close, { once: true })
      if (request.signal?.aborted) return close()
      // Headers and a first byte at once: a proxy, or the page, sees that the connection stands.
      controller.enqueue(encoder.encode('retry: 1000\n\n'))
      heartbeat = setInterval(() => {
        if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(': heartbeat\n\n'))
      }, HEARTBEAT_INTERVAL_MS).unref()
    },
    async pull(controller) {
      try {
        const events = await reader.next()
        if (events === null) return close()
        if (events.length > 0) controller.enqueue(encoder.encode(events.map(format).join('')))
      }
      catch {
        // The store cannot be read now. The browser comes again with its Last-Event-ID.
        close()
      }
    },
    cancel: release,
  }, { highWaterMark: 1 })
}

const format = (event: EventRecord): string => `id: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`
