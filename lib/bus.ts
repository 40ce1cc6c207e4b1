import { callback, json, object, text } from './check'
import { invalid, toPromise } from './errors'
import { registerWeakly } from './metrics/registry'
import { BUS } from './metrics/tables'
import { addon, bridge, flushBuses, callSync, offDelivery, onAnnouncement } from './native'
import type { NativeBus } from './native'
import { activeTraceparent, withTraceparent } from './trace'
import type { BusStats, EventBus, NativeEventBus } from './types'
import { warnLimited, Warnings } from './warn'

/** The subject of a persisted event, as a property that is not enumerable. It travels over buses of the application. */
const SUBJECT = Symbol.for('nvent.subject')

/** Returns the subject that an event carries. */
function subjectOf(event: object): string | undefined {
  const subject = (event as { [SUBJECT]?: unknown })[SUBJECT]
  return typeof subject === 'string' && subject !== '' ? text('event subject', subject) : undefined
}

type Handler = (event: any) => unknown
interface Registration { order: number, handler: Handler }

/** The event bus: JavaScript handlers in this class, native listeners (stores, wiring) on its native side. */
export class NventEventBus implements NativeEventBus {
  /** @internal */
  readonly native: NativeBus = new addon.NativeBus(bridge)
  private readonly types = new Map<string, Registration[]>()
  private readonly runs = new Map<string, Registration[]>()
  private readonly warnings = new Warnings('the event bus')
  private registrations = 0
  private order = 0
  private published = 0
  private subscription: number | undefined

  constructor() {
    registerWeakly(this, { metrics: BUS }, bus => bus.stats())
  }

  publish(event: any): void {
    object('event', event)
    if (text('event.type', event.type) === '') throw invalid('event.type: expected a non-empty string')
    this.published += 1
    // A stored event has the trace of its append.
    const forNative = this.native.hasListeners()
      ? withTraceparent(json('event', event), event, 'id' in event ? undefined : activeTraceparent())
      : undefined
    // Earlier announcements are dispatched first.
    flushBuses()
    const handlers = this.dispatch(event)
    const isStored = forNative !== undefined && callSync(() => this.native.publish(forNative, subjectOf(event)))
    if (handlers === 0 && !isStored && !('id' in event) && typeof event.runId === 'string') {
      warnLimited('NVENT_EVENT_LOST', `an event of type ${JSON.stringify(event.type)} of run ${JSON.stringify(event.runId)} was published on a bus where no flow wiring stores it`)
    }
  }

  stats(): BusStats {
    return { published: this.published, handlers: this.registrations, handlerErrors: this.warnings.count }
  }

  /** Passes an event on to native listeners only. @internal */
  publishNative(event: object): void {
    const text = json('event', event)
    callSync(() => this.native.publish(text, subjectOf(event)))
  }

  onType(type: string, handler: Handler): () => void {
    return this.register(this.types, text('type', type), callback('handler', handler))
  }

  subscribeRunId(runId: string, handler: Handler): () => void {
    return this.register(this.runs, text('runId', runId), callback('handler', handler))
  }

  private register(table: Map<string, Registration[]>, key: string, handler: Handler): () => void {
    const registration = { order: this.order++, handler }
    // What is announced and has no handler does not cross.
    if (!table.has(key)) this.native.setInterest(key, table === this.runs, true)
    // A new array each time: a handler that registers while handlers run receives the next event.
    table.set(key, [...table.get(key) ?? [], registration])
    if (this.registrations++ === 0) {
      const subscription = this.native.subscribe()
      this.subscription = subscription
      onAnnouncement(subscription, (event, subject) => {
        // Not enumerable: neither JSON nor a comparison shows it.
        Object.defineProperty(event, SUBJECT, { value: subject, configurable: true })
        this.dispatch(event)
      })
    }
    let registered = true
    return () => {
      if (!registered) return
      registered = false
      const rest = table.get(key)!.filter(other => other !== registration)
      if (rest.length > 0) table.set(key, rest)
      else {
        table.delete(key)
        this.native.setInterest(key, table === this.runs, false)
      }
      if (--this.registrations === 0) {
        this.native.unsubscribe()
        offDelivery(this.subscription!)
      }
    }
  }

  /** Calls the handlers of an event. Returns how many there are. */
  private dispatch(event: any): number {
    const lists = [event.type === '*' ? undefined : this.types.get(event.type), this.types.get('*'), this.runs.get(event.runId)].filter(list => list !== undefined)
    const all = lists.length === 1 ? lists[0]! : lists.flat().sort((a, b) => a.order - b.order)
    for (const { handler } of all) {
      try {
        toPromise(handler(event))?.catch(this.warnings.handlerFailed)
      }
      catch (error) {
        this.warnings.handlerFailed(error)
      }
    }
    return all.length
  }
}

const key = Symbol.for('nvent-native.bus')
const shared = globalThis as { [key]?: NventEventBus }

/** Returns the event bus of this JavaScript environment, which all loaded copies of the package share. */
export const getEventBus = (): NativeEventBus => shared[key] ??= new NventEventBus()

/** Creates an independent event bus. */
export const createEventBus = (): NativeEventBus => new NventEventBus()

/** Event types of flows, subscribed to on a bus that may not support '*'. */
const FLOW_TYPES = [
  'flow.start', 'flow.completed', 'flow.failed', 'flow.cancel', 'flow.stalled', 'emit',
  'step.started', 'step.completed', 'step.failed', 'step.retry', 'state', 'log',
]

/** One bus of the application, connected with one native bus: what is announced here is published there, once. */
class ForeignBus {
  readonly bus = new NventEventBus()
  /** Events announced here, which are not passed on again when the other bus publishes them. */
  private readonly announced = new WeakSet<object>()
  /** The handler types that one publish of an object has called. A repeated type means another publish. */
  private readonly received = new WeakMap<object, Set<string>>()
  private readonly inbound = new Map<string, () => void>()
  private outbound: (() => void) | undefined
  private links = 0
  private readers = 0

  constructor(private readonly other: EventBus) {}

  connect(): void {
    if (this.links++ > 0) return
    this.outbound = this.bus.onType('*', (event) => {
      this.announced.add(event)
      this.other.publish(event)
    })
  }

  disconnect(): void {
    if (--this.links > 0) return
    this.outbound?.()
  }

  /** Passes on what the other bus publishes. */
  read(types: Iterable<string>): void {
    this.readers += 1
    for (const type of types) {
      if (!this.inbound.has(type)) this.inbound.set(type, this.other.onType(type, event => this.receive(type, event)))
    }
  }

  stopReading(): void {
    if (--this.readers > 0) return
    for (const stop of this.inbound.values()) stop()
    this.inbound.clear()
  }

  /** Receives an event of the other bus, once: that may call both a type's handlers and those of '*'. */
  private receive(type: string, event: any): void {
    if (typeof event !== 'object' || event === null || this.announced.has(event)) return
    const types = this.received.get(event)
    if (types && !types.has(type)) {
      types.add(type)
      return
    }
    this.received.set(event, new Set([type]))
    this.bus.publishNative(event)
  }
}

const foreign = new WeakMap<object, ForeignBus>()

/**
 * Connects a native bus with one of the application. Announcements are published there; what is published there is passed
 * on here where `types` are given. No handler is left on the other bus after `stop()`.
 */
export class BusLink {
  readonly bus: NventEventBus
  private readonly foreign: ForeignBus | undefined
  private started = false

  constructor(other: EventBus, private readonly types?: string[]) {
    if (other instanceof NventEventBus) {
      this.bus = other
      return
    }
    let shared = foreign.get(other)
    if (!shared) foreign.set(other, shared = new ForeignBus(other))
    this.foreign = shared
    this.bus = shared.bus
  }

  start(): void {
    if (!this.foreign || this.started) return
    this.started = true
    this.foreign.connect()
    if (this.types) this.foreign.read(['*', ...FLOW_TYPES, ...this.types])
  }

  stop(): void {
    if (!this.foreign || !this.started) return
    this.started = false
    if (this.types) this.foreign.stopReading()
    this.foreign.disconnect()
  }
}
