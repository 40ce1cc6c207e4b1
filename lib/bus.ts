import { callback, json, object, text } from './check'
import { invalid, toPromise } from './errors'
import { addon, bridge, flushBuses, callSync, offDelivery, onAnnouncement } from './native'
import type { NativeBus } from './native'
import type { EventBus } from './types'
import { Warnings } from './warn'

type Handler = (event: any) => unknown
interface Registration { order: number, handler: Handler }

/** The event bus: JavaScript handlers in this class, native listeners (stores, wiring) on its native side. */
export class NventEventBus implements EventBus {
  /** @internal */
  readonly native: NativeBus = new addon.NativeBus(bridge)
  private readonly types = new Map<string, Registration[]>()
  private readonly runs = new Map<string, Registration[]>()
  private readonly warnings = new Warnings('the event bus')
  private registrations = 0
  private order = 0
  private subscription: number | undefined

  publish(event: any): void {
    object('event', event)
    if (text('event.type', event.type) === '') throw invalid('event.type: expected a non-empty string')
    const forNative = this.native.hasListeners() ? json('event', event) : undefined
    // Earlier announcements are dispatched first.
    flushBuses()
    this.dispatch(event)
    if (forNative !== undefined) callSync(() => this.native.publish(forNative))
  }

  onType(type: string, handler: Handler): () => void {
    return this.register(this.types, text('type', type), callback('handler', handler))
  }

  subscribeRunId(runId: string, handler: Handler): () => void {
    return this.register(this.runs, text('runId', runId), callback('handler', handler))
  }

  private register(table: Map<string, Registration[]>, key: string, handler: Handler): () => void {
    const registration = { order: this.order++, handler }
    // A new array each time: a handler that registers while handlers run receives the next event.
    table.set(key, [...table.get(key) ?? [], registration])
    if (this.registrations++ === 0) {
      const subscription = this.native.subscribe()
      this.subscription = subscription
      onAnnouncement(subscription, event => this.dispatch(event))
    }
    let registered = true
    return () => {
      if (!registered) return
      registered = false
      const rest = table.get(key)!.filter(other => other !== registration)
      if (rest.length > 0) table.set(key, rest)
      else table.delete(key)
      if (--this.registrations === 0) {
        this.native.unsubscribe()
        offDelivery(this.subscription!)
      }
    }
  }

  private dispatch(event: any): void {
    const lists = [this.types.get(event.type), this.types.get('*'), this.runs.get(event.runId)].filter(list => list !== undefined)
    const all = lists.length === 1 ? lists[0]! : lists.flat().sort((a, b) => a.order - b.order)
    for (const { handler } of all) {
      try {
        toPromise(handler(event))?.catch(this.warnings.handlerFailed)
      }
      catch (error) {
        this.warnings.handlerFailed(error)
      }
    }
  }
}

const key = Symbol.for('nvent-native.bus')
const shared = globalThis as { [key]?: NventEventBus }

/** Returns the event bus of this JavaScript environment, which all loaded copies of the package share. */
export const getEventBus = (): EventBus => shared[key] ??= new NventEventBus()

/** Creates an independent event bus. */
export const createEventBus = (): EventBus => new NventEventBus()

/** Event types of flows, subscribed to on a bus that may not support '*'. */
const FLOW_TYPES = [
  'flow.start', 'flow.completed', 'flow.failed', 'flow.cancel', 'flow.stalled', 'emit',
  'step.started', 'step.completed', 'step.failed', 'step.retry', 'state', 'log',
]

/**
 * Connects a native bus with a JavaScript one: events published there are passed on here, and announcements here are
 * published there. No event is passed on twice, also where the other bus calls both a type's handlers and those of '*'.
 */
export class BusLink {
  readonly bus: NventEventBus
  /** Events announced here, which are not passed on again when the other bus publishes them. */
  private readonly announced = new WeakSet<object>()
  /** The handler types that one publish of an object has called. A repeated type means another publish. */
  private readonly received = new WeakMap<object, Set<string>>()
  private stops: Array<() => void> = []

  constructor(private readonly other: EventBus, private readonly types: string[] = []) {
    this.bus = other instanceof NventEventBus ? other : new NventEventBus()
  }

  start(): void {
    if (this.bus === this.other || this.stops.length > 0) return
    const receive = (type: string) => (event: any): void => {
      if (typeof event !== 'object' || event === null || this.announced.has(event)) return
      const types = this.received.get(event)
      if (types && !types.has(type)) {
        types.add(type)
        return
      }
      this.received.set(event, new Set([type]))
      this.bus.native.publish(json('event', event))
    }
    this.stops = [...new Set(['*', ...FLOW_TYPES, ...this.types])].map(type => this.other.onType(type, receive(type)))
    this.stops.push(this.bus.onType('*', (event) => {
      this.announced.add(event)
      this.other.publish(event)
    }))
  }

  stop(): void {
    for (const stop of this.stops) stop()
    this.stops = []
  }
}
