import { beginCall } from './activity'
import { fromNative, rethrown } from './errors'
import { loadAddon } from './loader'

/**
 * Calls the addon: JSON text in, JSON text out; what takes longer comes back as a ticket and is
 * settled in a batch. The other side is src/node/bridge.rs.
 */

/** JSON text, null for nothing, or the ticket of an operation that is settled later. */
export type Reply = string | number | null

interface NativeBridge {
  flush(): void
  awake(): void
  takeSettled(): string | null
  takeDeliveries(only?: number | null): string | null
  hold(subscription: number): void
  release(subscription: number, ok: boolean): void
  forget(subscription: number): void
  takeCalls(): string | null
  answer(call: number, ok: boolean, text: string): void
}

export interface NativeStore {
  open(): Reply
  close(): Reply
  health(): Reply
  stats(): string
  append(subject: string, event: string, expected?: string | null): Reply
  read(subject: string, query?: string | null): Reply
  subscribe(subject: string): Reply
  unsubscribe(id: number): Reply
  deleteSubject(subject: string): Reply
  kvGet(key: string): Reply
  kvSet(key: string, value: string, ttl?: number | null): Reply
  kvDelete(key: string): Reply
  kvClear(pattern: string): Reply
  kvIncrement(key: string, by: number): Reply
  indexAdd(key: string, id: string, score: number, metadata?: string | null): Reply
  indexGet(key: string, id: string): Reply
  indexRead(key: string, query?: string | null): Reply
  indexUpdate(key: string, id: string, patch: string, expectedVersion?: number | null): Reply
  indexIncrement(key: string, id: string, field: string, by: number): Reply
  indexDelete(key: string, id: string): Reply
  docSave(collection: string, id: string, doc: string): Reply
  docGet(collection: string, id: string): Reply
  docList(collection: string, query?: string | null): Reply
  docDelete(collection: string, id: string): Reply
  backup(path: string): Reply
  verify(): Reply
}

export interface NativeStream {
  open(): Reply
  close(): Reply
  health(): Reply
  stats(): string
  publish(topic: string, message: string): Reply
  subscribe(topic: string, options: string): Reply
  unsubscribe(id: number): Reply
  topics(): string
  subscriptionCount(topic: string): number
  parked(topic: string, group: string): Reply
  replayParked(topic: string, group: string): Reply
}

export interface NativeQueue {
  open(): Reply
  enqueue(queue: string, job: string): Reply
  schedule(queue: string, job: string, options: string): Reply
  job(queue: string, id: string): Reply
  jobs(queue: string, states: string[], offset: number, limit?: number | null): Reply
  counts(queue: string): Reply
  scheduled(queue: string): Reply
  removeScheduled(id: string): Reply
  removeJob(queue: string, id: string): Reply
  isPaused(queue: string): Reply
  pause(queue: string): Reply
  resume(queue: string): Reply
  on(queue: string, event: string): Reply
  off(id: number): Reply
  registerWorker(queue: string, jobName: string, options: string): Reply
  start(queue: string): Reply
  complete(token: number, result: string): Reply
  fail(token: number, reason: string): Reply
  progress(token: number, progress: string): Reply
  drain(timeoutMs: number): Reply
  settled(token: number): Reply
  close(limitMs: number): Reply
}

export interface NativeBus {
  publish(event: string): void
  hasListeners(): boolean
  subscribe(): number
  unsubscribe(): void
}

export interface NativeWiring {
  start(): Reply
  stop(): Reply
  stats(): string
}

interface Addon {
  Bridge: new (onWake: () => void) => NativeBridge
  NativeBus: new (bridge: NativeBridge) => NativeBus
  NativeStore: {
    memory(bridge: NativeBridge, bus: NativeBus | null): NativeStore
    file(bridge: NativeBridge, bus: NativeBus | null, options: string): NativeStore
    redis(bridge: NativeBridge, bus: NativeBus | null, options: string): NativeStore
  }
  NativeStream: {
    memory(bridge: NativeBridge, retain: boolean, maxEvents: number | null, maxAgeMs: number | null): NativeStream
    redis(bridge: NativeBridge, options: string): NativeStream
  }
  NativeQueue: {
    memory(bridge: NativeBridge, options: string): NativeQueue
    file(bridge: NativeBridge, options: string): NativeQueue
  }
  NativeCoordinator: new (bridge: NativeBridge, bus: NativeBus, stream: NativeStream | null, target: number, options: string) => NativeWiring
  NativeFlowWiring: new (
    bridge: NativeBridge, bus: NativeBus, store: NativeStore | null, storeTarget: number,
    queue: NativeQueue | null, queueTarget: number, options: string,
  ) => NativeWiring & {
    setFlows(flows: string): void
    queues(): string
    jobFailed(queue: string, jobId: string, name: string, reason?: string | null): void
  }
}

export const addon: Addon = loadAddon()

interface Settlement { resolve: (value: any) => void, reject: (error: unknown) => void, onAnswer: (() => void) | undefined }
/** `shared`: whether more than one subscriber gets it. */
type Delivery = [topic: string, message: any, shared?: boolean]
interface Subscriber {
  handle: (message: any, topic: string) => unknown
  failed: (error: unknown) => void
  /** One event at a time, each released: it shares its events with a group. */
  single: boolean
  waiting: Delivery[]
  /** Its handler is running, or has returned a promise that is not settled. */
  busy: boolean
}

const settlements = new Map<number, Settlement>()
const subscribers = new Map<number, Subscriber>()
/** Subscriptions of buses, whose handlers run before the append that they are about is settled. */
const buses = new Set<number>()
const targets = new Map<number, object>()

export const bridge = new addon.Bridge(onWake)

// The native side never keeps the process alive. While an operation is under way, which ends, this does.
const alive = setInterval(() => {}, 0x7FFFFFFF).unref()

function onWake(): void {
  bridge.awake()
  takeCalls()
  takeSettled()
  takeDeliveries()
}

function takeSettled(): void {
  const batch = bridge.takeSettled()
  if (batch === null) return
  flushBuses()
  const rows = JSON.parse(batch)
  for (let i = 0; i < rows.length; i += 3) {
    const settlement = settlements.get(rows[i])
    if (!settlement) continue
    settlements.delete(rows[i])
    settlement.onAnswer?.()
    if (rows[i + 1] === 1) settlement.resolve(rows[i + 2])
    else settlement.reject(fromNative(rows[i + 2]))
  }
  if (settlements.size === 0) alive.unref()
}

// Calls of one turn wake the thread that carries them out once, when all are made.
let turnHasCalls = false
function endTurn(): void {
  turnHasCalls = false
  bridge.flush()
}

/** Runs a native method: its value, or a promise of it. */
export function call<T>(method: () => Reply, isStoreCall = false): T | Promise<T> {
  const reply = now(method)
  if (typeof reply === 'string') return JSON.parse(reply)
  if (reply === null) return null as T
  if (!turnHasCalls) {
    turnHasCalls = true
    process.nextTick(endTurn)
  }
  return new Promise<T>((resolve, reject) => {
    if (settlements.size === 0) alive.ref()
    settlements.set(reply, { resolve, reject, onAnswer: beginCall(isStoreCall) })
  })
}

/** How an adapter is. It never rejects: what keeps it from telling is the detail. */
export async function healthOf(native: { health(): Reply }): Promise<{ ok: boolean, detail?: string }> {
  try {
    return await call(() => native.health())
  }
  catch (error) {
    return { ok: false, detail: (error as Error).message }
  }
}

/** Runs a method of a store, which the end of a job waits for. */
export function storeCall<T>(method: () => Reply): T | Promise<T> {
  return call<T>(method, true)
}

/** Runs a native method that never takes longer. */
export function now<T>(method: () => T): T {
  try {
    return method()
  }
  catch (thrown) {
    throw rethrown(thrown)
  }
}

let scheduled = false
/** Delivers a batch, or all that waits for one subscription; whether there was anything. */
function takeDeliveries(only?: number): boolean {
  const batch = bridge.takeDeliveries(only)
  if (batch === null) return false
  const [messages, sequences, more] = JSON.parse(batch) as [Delivery[], number[], boolean]
  const touched: number[] = []
  for (let i = 0; i < sequences.length; i += 3) {
    const id = sequences[i]!
    const subscriber = subscribers.get(id)
    if (!subscriber) continue
    if (subscriber.waiting.length === 0) touched.push(id)
    const end = sequences[i + 1]! + sequences[i + 2]!
    for (let index = sequences[i + 1]!; index < end; index++) {
      const delivery = messages[index]!
      delivery[2] = delivery[2] !== undefined
      subscriber.waiting.push(delivery)
    }
  }
  for (const id of touched) pump(id)
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

/** A copy of what JSON.parse returned, for less than structuredClone. */
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

/** Gives a subscriber everything that waits for it so far. */
export function flushDeliveries(id: number): void {
  while (takeDeliveries(id));
}

/** Runs the bus handlers for everything announced so far. */
export function flushBuses(): void {
  buses.forEach(flushDeliveries)
}

/** Gives a subscriber what waits for it, in order, one at a time. */
function pump(id: number): void {
  const subscriber = subscribers.get(id)
  if (!subscriber || subscriber.busy) return
  subscriber.busy = true
  let ok = true
  while (subscriber.waiting.length > 0) {
    const [topic, message, shared] = subscriber.waiting.shift()!
    let returned: unknown
    ok = true
    try {
      // Each handler gets an object of its own: what one changes, no other sees.
      returned = subscriber.handle(shared ? clone(message) : message, topic)
    }
    catch (error) {
      ok = false
      subscriber.failed(error)
    }
    if (typeof (returned as PromiseLike<unknown> | undefined)?.then === 'function') {
      bridge.hold(id)
      void settled(id, subscriber, returned as PromiseLike<unknown>)
      return
    }
  }
  subscriber.busy = false
  if (subscriber.single) bridge.release(id, ok)
}

/** Waits for a handler, then goes on. */
async function settled(id: number, subscriber: Subscriber, promise: PromiseLike<unknown>): Promise<void> {
  let ok = true
  try {
    await promise
  }
  catch (error) {
    ok = false
    subscriber.failed(error)
  }
  subscriber.busy = false
  if (subscriber.waiting.length > 0) pump(id)
  if (!subscriber.busy) bridge.release(id, ok)
}

/** Calls `handle` with what is delivered to a subscription, until `unsubscribe`. */
export function onDelivery(
  id: number,
  single: boolean,
  handle: (message: any, topic: string) => unknown,
  failed: (error: unknown) => void,
): void {
  subscribers.set(id, { handle, failed, single, waiting: [], busy: false })
  bridge.release(id, true)
}

/** From here on the handler is not called any more. */
export function offDelivery(id: number): void {
  const subscriber = subscribers.get(id)
  if (!subscriber) return
  subscribers.delete(id)
  buses.delete(id)
  subscriber.waiting.length = 0
  bridge.forget(id)
}

/** Like onDelivery, for the handlers of a bus. */
export function onAnnouncement(id: number, handle: (event: any) => void): void {
  onDelivery(id, false, handle, () => {})
  buses.add(id)
}

/** Lets native code call methods of a JavaScript object; returns its number, for `release`. */
export function lend(target: object): number {
  nextTarget += 1
  targets.set(nextTarget, target)
  return nextTarget
}
let nextTarget = 0

export function takeBack(target: number): void {
  targets.delete(target)
}

function takeCalls(): void {
  const batch = bridge.takeCalls()
  if (batch === null) return
  for (const [id, target, method, args] of JSON.parse(batch)) void answer(id, target, method, args)
}

async function answer(id: number, target: number, method: string, args: unknown[]): Promise<void> {
  try {
    const receiver = targets.get(target) as Record<string, any> | undefined
    if (!receiver) throw new Error('the object is gone')
    const value: unknown = await receiver[method](...args)
    bridge.answer(id, true, JSON.stringify(value) ?? 'null')
  }
  catch (error) {
    bridge.answer(id, false, String((error as Error)?.message ?? error))
  }
}
