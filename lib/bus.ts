import { callback, json, object, text } from './check'
import { invalid } from './errors'
import { addon, bridge, flushBuses, now, offDelivery, onAnnouncement } from './native'
import type { NativeBus } from './native'
import type { EventBus } from './types'
import { Warnings } from './warn'

type Handler = (event: any) => unknown
interface Registration { order: number, handler: Handler }

/** The event bus: JavaScript handlers here, native listeners (stores, wiring) on its native side. */
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
    const heard = this.native.hasListeners() ? json('event', event) : undefined
    // What was announced before is heard before.
    flushBuses()
    this.dispatch(event)
    if (heard !== undefined) now(() => this.native.publish(heard))
  }

  onType(type: string, handler: Handler): () => void {
    return this.register(this.types, text('type', type), callback('handler', handler))
  }

  subscribeRunId(runId: string, handler: Handler): () => void {
    return this.register(this.runs, text('runId', runId), callback('handler', handler))
  }

  private register(table: Map<string, Registration[]>, key: string, handler: Handler): () => void {
    const registration = { order: this.order++, handler }
    // A new array each time, so that one who registers while handlers run hears the next event.
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
        const returned = handler(event) as PromiseLike<unknown> | undefined
        if (typeof returned?.then === 'function') returned.then(undefined, this.warnings.handlerFailed)
      }
      catch (error) {
        this.warnings.handlerFailed(error)
      }
    }
  }
}

const key = Symbol.for('nvent-native.bus')
const shared = globalThis as { [key]?: NventEventBus }

/** The event bus of this JavaScript environment, the same however often the package was loaded. */
export const getEventBus = (): EventBus => shared[key] ??= new NventEventBus()

export const createEventBus = (): EventBus => new NventEventBus()

/** Event types of flows: what is asked of a bus that has no '*'. */
const FLOW_TYPES = [
  'flow.start', 'flow.completed', 'flow.failed', 'flow.cancel', 'flow.stalled', 'emit',
  'step.started', 'step.completed', 'step.failed', 'step.retry', 'state', 'log',
]

/**
 * A native bus that speaks with a JavaScript one: what is published there is heard here, and what is announced here is
 * published there. Nothing is heard twice, also where the other bus calls both a type's handlers and those of '*'.
 */
export class BusLink {
  readonly bus: NventEventBus
  /** Announced here, so not to be heard from there. */
  private readonly announced = new WeakSet<object>()
  /** For which types one publish of an object was heard. Hearing it for one of them again is another publish. */
  private readonly heard = new WeakMap<object, Set<string>>()
  private stops: Array<() => void> = []

  constructor(private readonly other: EventBus, private readonly types: string[] = []) {
    this.bus = other instanceof NventEventBus ? other : new NventEventBus()
  }

  start(): void {
    if (this.bus === this.other || this.stops.length > 0) return
    const hear = (type: string) => (event: any): void => {
      if (typeof event !== 'object' || event === null || this.announced.has(event)) return
      const types = this.heard.get(event)
      if (types && !types.has(type)) {
        types.add(type)
        return
      }
      this.heard.set(event, new Set([type]))
      this.bus.native.publish(json('event', event))
    }
    this.stops = [...new Set(['*', ...FLOW_TYPES, ...this.types])].map(type => this.other.onType(type, hear(type)))
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
