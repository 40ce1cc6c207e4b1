import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { BusLink, getEventBus } from './bus'
import { callback, filterFields, finite, json, jsonObject, jsonPatch, object, options, text } from './check'
import { NventConsumer, readFeed, readParked, requestReplay } from './consumer'
import { debug } from './debug'
import { disposable } from './dispose'
import { NventError } from './errors'
import { iterateEvents, iterateFeed } from './iterate'
import type { Iteration } from './iterate'
import { plainEvent } from './plain'
import type { PlainEvent } from './plain'
import { registerWeakly } from './metrics/registry'
import { STORE } from './metrics/tables'
import { addon, bridge, callAndTake, flushBuses, healthOf, callSync, offDelivery, onDelivery, promised, storeCall as call, storeWrite as write } from './native'
import type { NativeStore } from './native'
import * as tables from './options/store.js'
import { inSpan, messaging, traceparentOf, tracing, withTraceparent } from './trace'
import type { SpanSpec } from './trace'
import type { AppendOptions, ConsumeOptions, Consumer, EventBus, EventReadOptions, EventRecord, EventSubscription, Feed, FileStore, FileStoreOptions, IndexEntry, ListedConsumer, ListOptions, NewEvent, ParkedConsumerEvent, StoreAdapter, StoreOptions, StoreStats, SubjectPage } from './types'
import { Warnings } from './warn'

/** How long `close` waits for the handlers of consumers, in ms. */
const CONSUMER_STOP_TIMEOUT = 10_000

function checkFilter(filter: object | null | undefined): void {
  if (filter) filterFields('options.filter', filter)
}

/** Returns what counts of a cursor of documents. */
function documentCursor({ id, doc }: NonNullable<ListOptions['cursor']>, sortBy: string | undefined): { id: string, doc?: unknown } {
  return sortBy === undefined ? { id } : { id, doc: object('options.cursor.doc', doc) }
}

const present = (value: unknown): boolean => value !== undefined && value !== null

function readOptions(opts: EventReadOptions | undefined): string | undefined {
  const given = options('options', opts, tables.readOptions)
  return present(opts) ? JSON.stringify(given) : undefined
}

/** Returns the started link to the bus that a store announces on, or undefined where it announces on none. */
function announceOn(option: EventBus | null | undefined): BusLink | undefined {
  if (option === null) return
  const link = new BusLink(option ?? getEventBus())
  link.start()
  return link
}

/** What an append returns: the record, or only what the caller does not have. The ts is the time in the id where it is left out. */
type Stored = string | [id: string, ts: number] | EventRecord

/** Completes the copy of an event. Without one the whole record is there. */
function recordOf(stored: Stored, event: PlainEvent | undefined): EventRecord {
  if (event === undefined || typeof stored === 'object' && !Array.isArray(stored)) return stored as EventRecord
  const [id, ts] = typeof stored === 'string' ? [stored, Number.parseInt(stored, 10)] : stored
  event.id = id
  event.ts = ts
  return event as unknown as EventRecord
}

/** A store of any backend: both surfaces, over one native store. */
export abstract class NventStoreAdapter implements StoreAdapter {
  /** @internal */
  readonly native: NativeStore
  /** Whether other processes may work on it. @internal */
  readonly isShared: boolean = false
  /** Where it announces what it appended. */
  readonly bus: EventBus | null
  private readonly link: BusLink | undefined
  readonly stream: StoreAdapter['stream']
  readonly kv: StoreAdapter['kv']
  readonly index: StoreAdapter['index']
  readonly feed: Feed
  private readonly subscriptions = new Set<number>()
  private readonly running = new Set<NventConsumer>()
  private readonly loops = new Set<Iteration<any>>()
  private readonly warnings: Warnings
  private readonly endMetrics: (last?: StoreStats) => void

  /** @internal */
  protected constructor(
    private readonly backend: 'memory' | 'file' | 'redis', opts: StoreOptions, create: (bus: BusLink['bus']['native'] | null) => NativeStore, dataDir?: string,
  ) {
    const link = announceOn(opts.bus)
    this.link = link
    this.bus = opts.bus === undefined ? getEventBus() : opts.bus
    this.native = callSync(() => create(link?.bus.native ?? null))
    this.warnings = new Warnings(`the ${backend} store`)
    this.endMetrics = registerWeakly(this, { metrics: STORE, labels: { backend }, ...dataDir === undefined ? {} : { shared: resolve(dataDir) } }, store => store.stats())
    const { native } = this
    const append = <Type extends string>(
      subject: string, event: NewEvent<Type>, expected: string | undefined, traceparent?: string,
    ): EventRecord<Type> | Promise<EventRecord<Type>> => {
      const copy = plainEvent(event)
      if (copy && traceparent !== undefined && !('traceparent' in copy)) copy['traceparent'] = traceparent
      const body = copy ? JSON.stringify(copy) : withTraceparent(jsonObject('event', event), event, traceparent)
      const stored = callAndTake<Stored>(() => native.append(text('subject', subject), body, expected, copy !== undefined), true)
      const complete = (stored: Stored): EventRecord<Type> => recordOf(stored, copy) as EventRecord<Type>
      if (stored instanceof Promise) return stored.then(complete)
      flushBuses()
      return complete(stored)
    }
    this.stream = {
      append: <Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions) => promised(() => {
        const { expectedLastId } = options('options', opts, tables.appendOptions)
        const expected = expectedLastId === null ? '' : expectedLastId
        const traced = tracing()
        if (!traced) return append(subject, event, expected)
        const spec: SpanSpec = { name: 'append', kind: 'PRODUCER', attributes: { ...messaging('append', 'send', String(subject), { runId: event?.['runId'] }), 'nvent.event.type': String(event?.type) } }
        return inSpan(traced, spec, async (span) => {
          const record = await append(subject, event, expected, traceparentOf(traced, span))
          span.setAttribute('messaging.message.id', record.id)
          return record
        })
      }),
      read: (subject, opts) => call<EventRecord[]>(() => native.read(text('subject', subject), readOptions(opts))),
      subscribe: async (subject, onEvent) => this.listen(subject, onEvent),
      iterate: (subject, opts) => iterateEvents(this.loops, subject, opts, (glob, wake) => this.listen(glob, wake), opts => this.stream.read(subject, opts)),
      delete: subject => call<boolean>(() => native.deleteSubject(text('subject', subject))),
    }
    this.kv = {
      get: <T>(key: string) => call<T | null>(() => native.kvGet(text('key', key))),
      set: (key, value, ttl) => write(() => native.kvSet(text('key', key), json('value', value), present(ttl) ? finite('ttl', ttl) : undefined)),
      delete: key => write(() => native.kvDelete(text('key', key))),
      clear: pattern => call<number>(() => native.kvClear(text('pattern', pattern))),
      increment: (key, by = 1) => call<number>(() => native.kvIncrement(text('key', key), finite('by', by))),
    }
    this.feed = {
      read: async opts => readFeed(native, opts),
      iterate: opts => iterateFeed(this.loops, opts, (glob, wake) => this.listen(glob, wake), this.feed),
      head: async () => call<string | null>(() => native.feedHead()),
    }
    this.index = {
      add: (key, id, score, metadata) => write(() =>
        native.indexAdd(text('key', key), text('id', id), finite('score', score), present(metadata) ? jsonObject('metadata', metadata) : undefined)),
      get: (key, id) => call<IndexEntry | null>(() => native.indexGet(text('key', key), text('id', id))),
      read: (key, opts) => call<IndexEntry[]>(() => {
        const { cursor, ...given } = options('options', opts, tables.indexReadOptions)
        checkFilter(given.filter)
        const after = cursor && { id: cursor.id, score: cursor.score }
        return native.indexRead(text('key', key), present(opts) ? json('options', { ...given, cursor: after }) : undefined)
      }),
      count: (key, opts) => call<number>(() => {
        const given = options('options', opts, tables.indexCountOptions)
        checkFilter(given.filter)
        return native.indexCount(text('key', key), present(opts) ? json('options', given) : undefined)
      }),
      update: (key, id, metadata, opts) => call<boolean>(() => {
        const { expectedVersion } = options('options', opts, tables.indexUpdateOptions)
        return native.indexUpdate(text('key', key), text('id', id), jsonPatch('metadata', metadata), expectedVersion)
      }),
      updateWithRetry: async (key, id, metadata) => {
        if (await this.index.update(key, id, metadata)) return
        throw new NventError('NVENT_NOT_FOUND', `Entry not found: ${JSON.stringify(id)} in index ${JSON.stringify(key)}`)
      },
      increment: (key, id, field, by = 1) =>
        call<number>(() => native.indexIncrement(text('key', key), text('id', id), text('field', field), finite('by', by))),
      delete: (key, id) => call<boolean>(() => native.indexDelete(text('key', key), text('id', id))),
    }
  }

  async init(): Promise<void> {
    await call(() => this.native.open())
    debug('the %s store is open', this.backend)
  }

  async close(): Promise<void> {
    for (const loop of this.loops) void loop.end()
    for (const id of this.subscriptions) offDelivery(id)
    this.subscriptions.clear()
    if (this.running.size > 0) await this.stopConsumers()
    const last = this.stats()
    await call(() => this.native.close())
    debug('the %s store is closed', this.backend)
    this.endMetrics({ ...last, ...this.stats() })
    flushBuses()
    this.link?.stop()
  }

  async health(): Promise<{ ok: boolean, backend: 'memory' | 'file' | 'redis', detail?: string }> {
    return { backend: this.backend, ...await healthOf(this.native) }
  }

  async consume(name: string, handler: Parameters<StoreAdapter['consume']>[1], opts?: ConsumeOptions): Promise<Consumer> {
    callback('handler', handler)
    const consumer = await NventConsumer.start(this.native, name, handler, opts, {
      backend: this.backend,
      failed: this.warnings.handlerFailed,
      onStop: stopped => this.running.delete(stopped),
    })
    this.running.add(consumer)
    return consumer
  }

  async subjects(pattern = '*', cursor?: string | null): Promise<SubjectPage> {
    return call(() => this.native.subjects(text('pattern', pattern), present(cursor) ? text('cursor', cursor) : undefined))
  }

  async consumers(): Promise<ListedConsumer[]> {
    return call(() => this.native.consumers())
  }

  async parked(consumer: string, opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]> {
    return readParked(opts, (after, limit) => this.native.parked(text('consumer', consumer), after, limit))
  }

  async replay(consumer: string, positions?: string[]): Promise<number> {
    return requestReplay(positions, checked => this.native.replay(text('consumer', consumer), checked))
  }

  async deleteConsumer(name: string): Promise<boolean> {
    return call(() => this.native.deleteConsumer(text('name', name)))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Stops the consumers, so that their cursors are stored. A handler that does not end holds the store up for a while only. */
  private async stopConsumers(): Promise<void> {
    const timeout = new AbortController()
    const stopped = Promise.allSettled([...this.running].map(consumer => consumer.stop()))
    await Promise.race([stopped, delay(CONSUMER_STOP_TIMEOUT, undefined, { signal: timeout.signal }).catch(() => {})])
    timeout.abort()
  }

  stats(): StoreStats {
    return { ...JSON.parse(callSync(() => this.native.stats())), handlerErrors: this.warnings.count }
  }

  private async listen(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription> {
    callback('onEvent', onEvent)
    const id = await call<number>(() => this.native.subscribe(text('subject', subject)))
    onDelivery(id, false, event => onEvent(event), this.warnings.handlerFailed)
    this.subscriptions.add(id)
    const unsubscribe = async (): Promise<void> => {
      offDelivery(id)
      if (this.subscriptions.delete(id)) await call(() => this.native.unsubscribe(id))
    }
    return disposable({ id: String(id), subject, unsubscribe }, unsubscribe)
  }

  // The surface of nvent 0.4.1: the same operations under their older names, and documents.

  async append<const Type extends string>(subject: string, event: NewEvent<Type>, opts?: AppendOptions): Promise<EventRecord<Type>> {
    return this.stream.append(subject, event, opts)
  }

  async read(subject: string, opts?: EventReadOptions): Promise<EventRecord[]> {
    return this.stream.read(subject, opts)
  }

  async subscribe(subject: string, onEvent: (event: EventRecord) => unknown): Promise<EventSubscription> {
    return this.listen(subject, onEvent)
  }

  async save(collection: string, id: string, doc: Record<string, any>): Promise<void> {
    const document = jsonObject('doc', doc)
    await call(() => this.native.docSave(text('collection', collection), text('id', id), document))
  }

  async get(collection: string, id: string): Promise<Record<string, any> | null> {
    return call(() => this.native.docGet(text('collection', collection), text('id', id)))
  }

  async list(collection: string, opts?: Parameters<StoreAdapter['list']>[1]): Promise<Array<{ id: string, doc: any }>> {
    const { cursor, ...given } = options('options', opts, tables.listOptions)
    checkFilter(given.filter)
    const after = cursor && documentCursor(cursor, given.sortBy)
    return call(() => this.native.docList(text('collection', collection), present(opts) ? json('options', { ...given, cursor: after }) : undefined))
  }

  async delete(collection: string, id: string): Promise<void> {
    await call(() => this.native.docDelete(text('collection', collection), text('id', id)))
  }

  async indexAdd(key: string, id: string, score: number, metadata?: Record<string, any>): Promise<void> {
    return this.index.add(key, id, score, metadata)
  }

  async indexGet(key: string, id: string): Promise<IndexEntry | null> {
    return this.index.get(key, id)
  }

  async indexRead(...args: Parameters<StoreAdapter['index']['read']>): Promise<IndexEntry[]> {
    return this.index.read(...args)
  }

  async indexUpdate(...args: Parameters<StoreAdapter['index']['update']>): Promise<boolean> {
    return this.index.update(...args)
  }

  async indexUpdateWithRetry(...args: Parameters<StoreAdapter['index']['updateWithRetry']>): Promise<void> {
    return this.index.updateWithRetry(...args)
  }

  async indexIncrement(...args: Parameters<StoreAdapter['index']['increment']>): Promise<number> {
    return this.index.increment(...args)
  }
}

/** A store in memory. Nothing outlives it. */
export class MemoryStoreAdapter extends NventStoreAdapter {
  constructor(opts?: StoreOptions) {
    super('memory', options('', opts, tables.storeOptions), bus => addon.NativeStore.memory(bridge, bus))
  }
}

/** A store in a folder: embedded, durable, one process at a time. */
export class FileStoreAdapter extends NventStoreAdapter implements FileStore {
  constructor(opts: FileStoreOptions) {
    const { bus: _, ...own } = options('', opts, tables.fileStoreOptions)
    super('file', opts, bus => addon.NativeStore.file(bridge, bus, JSON.stringify(own)), own.dataDir)
  }

  async backup(path: string): Promise<void> {
    await call(() => this.native.backup(text('path', path)))
  }

  async verify(): Promise<{ ok: boolean, problems: string[] }> {
    return call(() => this.native.verify())
  }
}
