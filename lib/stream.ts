import { types } from 'node:util'
import { callback, jsonObject, object, options, text } from './check'
import { debug } from './debug'
import { disposable } from './dispose'
import { invalid } from './errors'
import { HANDED_BACK, iterateMessages } from './iterate'
import type { Iteration } from './iterate'
import { registerWeakly } from './metrics/registry'
import { STREAM } from './metrics/tables'
import { addon, bridge, call, callAndTake, healthOf, callSync, offDelivery, onDelivery } from './native'
import type { NativeStream } from './native'
import { inSpan, messaging, tracing } from './trace'
import type { FilteredType, MemoryStreamOptions, MessagesOptions, StreamAdapter, StreamEvent, StreamGap, StreamStats, SubscribeOptions, SubscriptionHandle } from './types'
import { Warnings } from './warn'

const SUBSCRIBE = {
  group: 'string', filter: ['string', 'object'], fromBeginning: 'boolean', ignoreOwn: 'boolean', buffer: 'number', overflow: 'string',
} as const

function subscribeOptions(opts: SubscribeOptions | undefined): string {
  const { filter, ...rest } = options('options', opts, SUBSCRIBE as any)
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

/** A stream of any backend, over one native stream. */
export abstract class NventStreamAdapter implements StreamAdapter {
  /** @internal */
  readonly native: NativeStream
  private readonly subscriptions = new Map<number, string>()
  private readonly loops = new Set<Iteration<any>>()
  private readonly warnings: Warnings
  private delivered = 0
  private gaps = 0
  private readonly endMetrics: (last?: StreamStats) => void

  /** @internal */
  protected constructor(private readonly backend: 'memory' | 'redis', create: () => NativeStream) {
    this.native = callSync(create)
    this.warnings = new Warnings(`the ${backend} stream`)
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

  async subscribe<const Filter extends string | RegExp = RegExp>(
    topic: string, handler: (event: StreamEvent<FilteredType<Filter>> | StreamGap, topic: string) => unknown, opts?: SubscribeOptions<Filter>,
  ): Promise<SubscriptionHandle> {
    callback('handler', handler)
    const given = subscribeOptions(opts)
    const [id, single] = await call<[number, boolean]>(() => this.native.subscribe(text('topic', topic), given))
    const handle = (event: any, on: string): unknown => {
      if (event.type === 'stream.gap') this.gaps += 1
      else this.delivered += 1
      return handler(event, on)
    }
    onDelivery(id, single, handle, (error) => {
      if (error !== HANDED_BACK) this.warnings.handlerFailed(error)
    })
    this.subscriptions.set(id, topic)
    const unsubscribe = () => this.end(id)
    return disposable({ id: String(id), topic, unsubscribe }, unsubscribe)
  }

  messages<const Filter extends string | RegExp = RegExp>(
    topic: string, opts?: MessagesOptions<Filter>,
  ): AsyncIterableIterator<StreamEvent<FilteredType<Filter>> | StreamGap, void, void> & AsyncDisposable {
    const { signal, ...rest } = options('options', opts, { ...SUBSCRIBE, signal: 'object' } as any)
    return iterateMessages(this.loops, signal, rest['group'] !== undefined, handler => this.subscribe<Filter>(topic, handler, rest))
  }

  async unsubscribe(handle: SubscriptionHandle): Promise<void> {
    await this.end(Number(text('handle.id', object('handle', handle)['id'])))
  }

  private async end(id: number): Promise<void> {
    offDelivery(id)
    if (this.subscriptions.delete(id)) await call(() => this.native.unsubscribe(id))
  }

  async listTopics(): Promise<string[]> {
    return JSON.parse(callSync(() => this.native.topics()))
  }

  async getSubscriptionCount(topic: string): Promise<number> {
    return callSync(() => this.native.subscriptionCount(text('topic', topic)))
  }

  async shutdown(): Promise<void> {
    for (const loop of this.loops) void loop.end()
    for (const id of this.subscriptions.keys()) offDelivery(id)
    this.subscriptions.clear()
    const last = this.stats()
    await call(() => this.native.close())
    debug('the %s stream is closed', this.backend)
    this.endMetrics(last)
  }

  /** {@link StreamAdapter.shutdown}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown()
  }

  async health(): Promise<{ ok: boolean, backend: 'memory' | 'redis', detail?: string }> {
    return { backend: this.backend, ...await healthOf(this.native) }
  }

  stats(): StreamStats {
    const native = JSON.parse(callSync(() => this.native.stats()))
    return { ...native, delivered: this.delivered, gaps: this.gaps, handlerErrors: this.warnings.count }
  }
}

/** Returns whether a message is a gap: some before it may be missing. */
export const isStreamGap = (event: { type: string }): event is StreamGap => event.type === 'stream.gap'

/** A stream in memory: a broker inside the process, one per adapter. */
export class MemoryStreamAdapter extends NventStreamAdapter {
  constructor(opts: MemoryStreamOptions = {}) {
    const { retain } = options('options', opts, { retain: 'object' })
    const { maxEvents, maxAgeMs } = options('options.retain', retain, { maxEvents: 'number', maxAgeMs: 'number' })
    for (const [name, value] of Object.entries({ maxEvents, maxAgeMs })) {
      if (value !== undefined && !(Number.isInteger(value) && value > 0)) {
        throw invalid(`options.retain.${name}: expected a whole number from 1, got ${value}`)
      }
    }
    super('memory', () => addon.NativeStream.memory(bridge, retain !== undefined, maxEvents ?? null, maxAgeMs ?? null))
  }
}
