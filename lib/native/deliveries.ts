import { toPromise } from '../errors'
import { bridge, hold, onWake, release } from './bridge'

/** `shared`: whether more than one subscriber gets it. */
type Delivery = [topic: string, message: any, shared?: boolean]
interface Subscriber {
  handle: (message: any, topic: string) => unknown
  failed: (error: unknown) => void
  /** One event at a time, each released: it shares its events with a group. */
  serial: boolean
  /** It gets the object that is for all, frozen, and none of its own. */
  frozen: boolean
  waiting: Delivery[]
  /** Its handler is running, or has returned a promise that is not settled. */
  busy: boolean
}

const subscribers = new Map<number, Subscriber>()
/** Subscriptions of buses, whose handlers run before the append that they are about is answered. */
const buses = new Set<number>()

onWake('deliveries', () => void takeDeliveries())

let scheduled = false
/** Delivers a batch, or what is waiting for one subscription. Returns whether there was anything. */
function takeDeliveries(only?: number): boolean {
  const batch = bridge.takeDeliveries(only)
  if (batch === null) return false
  const [messages, spans, more] = JSON.parse(batch) as [Delivery[], number[], boolean]
  const touched: number[] = []
  for (let i = 0; i < spans.length; i += 3) {
    const id = spans[i]!
    const subscriber = subscribers.get(id)
    if (!subscriber) continue
    if (subscriber.waiting.length === 0) touched.push(id)
    const end = spans[i + 1]! + spans[i + 2]!
    for (let index = spans[i + 1]!; index < end; index++) {
      const delivery = messages[index]!
      delivery[2] = delivery[2] !== undefined
      subscriber.waiting.push(delivery)
    }
  }
  for (const id of touched) drain(id)
  if (more && !scheduled) {
    scheduled = true
    // A turn of the event loop between batches: timers and sockets get theirs.
    setImmediate(() => {
      scheduled = false
      takeDeliveries()
    })
  }
  return true
}

/** Copies what JSON.parse returned, for less than structuredClone. */
function clone(value: any): any {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(clone)
  const copy: Record<string, any> = { ...value }
  for (const key in value) {
    const inner = value[key]
    if (typeof inner !== 'object' || inner === null) continue
    if (key === '__proto__') Object.defineProperty(copy, key, { value: clone(inner), configurable: true, enumerable: true, writable: true })
    else copy[key] = clone(inner)
  }
  return copy
}

/** Freezes what JSON.parse returned, deeply. */
function freeze(value: any): any {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const key in value) freeze(value[key])
  return Object.freeze(value)
}

/** Gives a subscriber everything that is waiting for it so far. */
export function flushDeliveries(id: number): void {
  while (takeDeliveries(id));
}

/** Runs the bus handlers for everything announced so far. */
export function flushBuses(): void {
  buses.forEach(flushDeliveries)
}

/** Gives a subscriber what is waiting for it, in order, one at a time. */
function drain(id: number): void {
  const subscriber = subscribers.get(id)
  if (!subscriber || subscriber.busy) return
  subscriber.busy = true
  let ok = true
  while (subscriber.waiting.length > 0) {
    const [topic, message, shared] = subscriber.waiting.shift()!
    let promise: Promise<unknown> | undefined
    ok = true
    try {
      // Each handler gets an object of its own, or one that none can change: what one changes, no other sees.
      const own = subscriber.frozen ? freeze(message) : shared ? clone(message) : message
      promise = toPromise(subscriber.handle(own, topic))
    }
    catch (error) {
      ok = false
      subscriber.failed(error)
    }
    if (promise) {
      bridge.pause(id)
      void awaitHandler(id, subscriber, promise)
      return
    }
  }
  subscriber.busy = false
  if (subscriber.serial) bridge.resume(id, ok)
}

/** Waits for a handler, then goes on. */
async function awaitHandler(id: number, subscriber: Subscriber, promise: Promise<unknown>): Promise<void> {
  let ok = true
  try {
    await promise
  }
  catch (error) {
    ok = false
    subscriber.failed(error)
  }
  subscriber.busy = false
  if (subscriber.waiting.length > 0) drain(id)
  if (!subscriber.busy) bridge.resume(id, ok)
}

/**
 * Calls `handle` with what is delivered to a subscription, until `offDelivery`: with objects of its own, or `frozen` ones.
 * `failed` never throws.
 */
export function onDelivery(
  id: number,
  serial: boolean,
  handle: (message: any, topic: string) => unknown,
  failed: (error: unknown) => void,
  frozen = false,
): void {
  hold()
  subscribers.set(id, { handle, failed, serial, frozen, waiting: [], busy: false })
  bridge.resume(id, true)
}

/** Ends the calls of the handler. One at work still acknowledges what it has. */
export function offDelivery(id: number): void {
  const subscriber = subscribers.get(id)
  if (!subscriber) return
  subscribers.delete(id)
  release()
  buses.delete(id)
  subscriber.waiting.length = 0
  bridge.remove(id, subscriber.busy)
}

/** Calls `handle` with what is announced on a bus, until `offDelivery`. */
export function onAnnouncement(id: number, handle: (event: any, subject: string) => void): void {
  onDelivery(id, false, handle, () => {})
  buses.add(id)
}
