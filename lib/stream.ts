import { types } from 'node:util'
import { callback, jsonObject, object, options, text } from './check'
import { debug } from './debug'
import { disposable } from './dispose'
import { invalid } from './errors'
import { HANDED_BACK, iterateMessages } from './iterate'
import type { Iteration } from './iterate'
import { registerWeakly } from './metrics/registry'
import { SharedSubscriptions } from './shared'
import { STREAM } from './metrics/tables'
import { addon, bridge, call, callAndTake, healthOf, callSync, offDelivery, onDelivery } from './native'
import type { NativeStream } from './native'
import { memoryStreamOptions, messagesOptions, subscribeOptions } from './options/stream.js'
import { inSpan, messaging, tracing } from './trace'
import type { Delivered, FilteredType, MemoryStreamOptions, MessagesOptions, StreamAdapter, StreamEvent, StreamGap, StreamStats, SubscribeOptions, SubscriptionHandle } from './types'
import { Warnings } from './warn'

/** As in src/fanout. */
const DEFAULT_BUFFER = 10_000

/** Returns the options as native code reads them. */
function settingsOf({ filter, shared: _, ...rest }: SubscribeOptions): string {
  return JSON.stringify({ ...rest, filter: typeof filter === 'object' ? regExp(filter) : filter })
}

/** Returns the source and flags of a RegExp, which may be one of another context. */
function regExp(filter: unknown): { source: string, flags: string } {
  if (!types.isRegExp(filter)) throw invalid('options.filter: expected a glob or a RegExp, got an object')
  const { source, flags } = filter
  // It would cross as another character.
  if (/\p{Surrogate}/u.test(source)) {
    throw invalid(`options.filter: /${source}/${flags} has half of a surrogate pair; write it as \\uXXXX`)
  }
  return { source, flags }
}

/** A subscription: its id, and what ends it. */
interface Subscribed { id: string, end: () => Promise<void> }

/** A stream of any backend, over one native stream. */
export abstract class NventStreamAdapter implements StreamAdapter {
  /** @internal */
  readonly native: NativeStream
  /** What ends each, by its id. */
  private readonly subscriptions = new Map<string, () => Promise<void>>()
  private readonly natives = new Set<number>()
  private readonly sharing: SharedSubscriptions
  private readonly loops = new Set<Iteration<any>>()
  private readonly warnings: Warnings
  private delivered = 0
  private gaps = 0
  private readonly endMetrics: (last?: StreamStats) => void

  /** @internal */
  protected constructor(private readonly backend: 'memory' | 'redis', create: () => NativeStream) {
    this.native = callSync(create)
    this.warnings = new Warnings(`the ${backend} stream`)
    this.sharing = new SharedSubscriptions({
      subscribe: async (topic, given) => (await call<[number, boolean]>(() => this.native.subscribe(topic, given)))[0],
      unsubscribe: async id => call(() => this.native.unsubscribe(id)),
      delivered: (message, count) => this.countDelivered(message, count),
      failed: this.handlerFailed,
    })
    this.endMetrics = registerWeakly(this, { metrics: STREAM, labels: { backend } }, stream => stream.stats())
  }

  async init(): Promise<void> {
    await call(() => this.native.open())
    debug('the %s stream is open', this.backend)
  }

  async publish<const Type extends string>(topic: string, event: StreamEvent<Type>): Promise<void> {
    const message = jsonObject('event', event)
    const traced = tracing()
    const publish = (): Promise<void> | void => callAndTake<void>(() => this.native.publish(text('topic', topic), message))
    if (!traced) await publish()
    else await inSpan(traced, { name: 'publish', kind: 'PRODUCER', attributes: messaging('publish', 'send', String(topic)) }, publish)
  }

  async subscribe<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(
    topic: string, handler: (event: Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, topic: string) => unknown, opts?: SubscribeOptions<Filter, Shared>,
  ): Promise<SubscriptionHandle> {
    callback('handler', handler)
    text('topic', topic)
    const given = options('options', opts as SubscribeOptions | undefined, subscribeOptions)
    // What the members of a group get, and what a replay gives, is for one. Publishers wait for a mailbox, so each needs its own.
    const joins = given.shared && given.group === undefined && !given.fromBeginning && given.overflow !== 'block'
    const { id, end } = joins ? await this.subscribeShared(topic, handler, given) : await this.subscribeAlone(topic, handler, given)
    this.subscriptions.set(id, end)
    const unsubscribe = () => this.end(id)
    return disposable({ id, topic, unsubscribe }, unsubscribe)
  }

  private async subscribeAlone(topic: string, handler: (event: any, topic: string) => unknown, given: SubscribeOptions): Promise<Subscribed> {
    const settings = settingsOf(given)
    const [id, single] = await call<[number, boolean]>(() => this.native.subscribe(topic, settings))
    const handle = (event: any, on: string): unknown => {
      this.countDelivered(event, 1)
      return handler(event, on)
    }
    onDelivery(id, single, handle, this.handlerFailed, given.shared === true)
    this.natives.add(id)
    return {
      id: String(id),
      end: async () => {
        this.natives.delete(id)
        offDelivery(id)
        await call(() => this.native.unsubscribe(id))
      },
    }
  }

  private async subscribeShared(topic: string, handler: (event: any, topic: string) => unknown, given: SubscribeOptions): Promise<Subscribed> {
    const { buffer = DEFAULT_BUFFER, overflow } = given
    // The native mailbox is empty after each turn of the event loop. What waits longer is in the queues of busy handlers, of this size.
    const settings = settingsOf(buffer < DEFAULT_BUFFER ? { ...given, buffer: DEFAULT_BUFFER } : given)
    return this.sharing.subscribe({ topic, options: settings, buffer, overflow: overflow === 'drop-newest' ? overflow : 'drop-oldest' }, handler)
  }

  private countDelivered(message: any, count: number): void {
    if (message.type === 'stream.gap') this.gaps += count
    else this.delivered += count
  }

  private readonly handlerFailed = (error: unknown): void => {
    if (error !== HANDED_BACK) this.warnings.handlerFailed(error)
  }

  messages<const Filter extends string | RegExp = RegExp, const Shared extends boolean = false>(
    topic: string, opts?: MessagesOptions<Filter, Shared>,
  ): AsyncIterableIterator<Delivered<StreamEvent<FilteredType<Filter>> | StreamGap, Shared>, void, void> & AsyncDisposable {
    const { signal, ...rest } = options('options', opts as MessagesOptions | undefined, messagesOptions)
    return iterateMessages(this.loops, signal, rest.group !== undefined, handler => this.subscribe<Filter, Shared>(topic, handler, rest as SubscribeOptions<Filter, Shared>))
  }

  async unsubscribe(handle: SubscriptionHandle): Promise<void> {
    await this.end(text('handle.id', object('handle', handle)['id']))
  }

  private async end(id: string): Promise<void> {
    const end = this.subscriptions.get(id)
    this.subscriptions.delete(id)
    await end?.()
  }

  async listTopics(): Promise<string[]> {
    return JSON.parse(callSync(() => this.native.topics()))
  }

  async getSubscriptionCount(topic: string): Promise<number> {
    return callSync(() => this.native.subscriptionCount(text('topic', topic))) + this.sharing.extra(topic)
  }

  async shutdown(): Promise<void> {
    for (const loop of this.loops) void loop.end()
    for (const id of this.natives) offDelivery(id)
    this.natives.clear()
    this.subscriptions.clear()
    const last = this.stats()
    this.sharing.close()
    await call(() => this.native.close())
    debug('the %s stream is closed', this.backend)
    this.endMetrics(last)
  }

  /** Calls {@link StreamAdapter.shutdown}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown()
  }

  async health(): Promise<{ ok: boolean, backend: 'memory' | 'redis', detail?: string }> {
    return { backend: this.backend, ...await healthOf(this.native) }
  }

  stats(): StreamStats {
    const native = JSON.parse(callSync(() => this.native.stats()))
    const { dropped, waiting } = this.sharing.stats()
    return {
      ...native,
      dropped: native.dropped + dropped,
      waiting: native.waiting + waiting,
      subscriptions: native.subscriptions + this.sharing.extra(),
      delivered: this.delivered,
      gaps: this.gaps,
      handlerErrors: this.warnings.count,
    }
  }
}

/** Returns whether a message is a gap: some before it may be missing. */
export const isStreamGap = (event: { type: string }): event is StreamGap => (event as { type?: unknown } | null | undefined)?.type === 'stream.gap'

/** A stream in memory: a broker inside the process, one per adapter. */
export class MemoryStreamAdapter extends NventStreamAdapter {
  constructor(opts: MemoryStreamOptions = {}) {
    const own = options('', opts, memoryStreamOptions)
    super('memory', () => addon.NativeStream.memory(bridge, JSON.stringify(own)))
  }
}
