import { AsyncResource } from 'node:async_hooks'
import { addon } from './addon'

type Kind = 'calls' | 'completed' | 'deliveries' | 'warnings'

/** Deliveries in a turn of the event loop that do not wait for the next: timers and sockets get theirs. */
const MAX_DIRECT = 32

const takers = new Map<Kind, () => void>()

function wake(): void {
  bridge.clearNotified()
  takers.get('calls')?.()
  // Before deliveries: what awaits a subscription registers its handler first.
  takers.get('completed')?.()
  takers.get('deliveries')?.()
  takers.get('warnings')?.()
}

/**
 * The bridge of this environment. Wakes JavaScript when native threads have something for it. Native code holds the function
 * weakly, so it lives as long as the bridge: a context that loaded the package can be collected when nothing is open in it.
 */
export const bridge = Object.assign(new addon.Bridge(wake), { wake })

const LONGEST = 0x7FFF_FFFF
let open = 0
let timer: NodeJS.Timeout | undefined

/** Keeps this context in memory, until as many calls of `release`: native code has something to call in it. */
export function hold(): void {
  if (open === 0) timer = setInterval(() => {}, LONGEST).unref()
  open += 1
}

/** Ends what `hold` began. */
export function release(): void {
  open -= 1
  if (open === 0) clearInterval(timer)
}

/** Keeps the process alive, and so this context. Returns a function that ends it. */
export function keepAlive(): () => void {
  const timer = setInterval(() => {}, LONGEST)
  return () => clearInterval(timer)
}

let direct = 0
let isScheduled = false
/** Whether what is left waits for the next turn of the event loop. */
let isPutOff = false
let reset: NodeJS.Immediate | undefined

/** Handlers do not run in the asynchronous context of the call that caused the delivery. */
const takeOutside = AsyncResource.bind(wake)

function takeNow(): void {
  isScheduled = false
  takeOutside()
}

/** Takes what a call has left, once the running JavaScript has ended: in this turn of the event loop, or the next. */
export function takeLeft(): void {
  if (isScheduled) return
  reset ??= setImmediate(() => {
    reset = undefined
    direct = 0
    if (!isPutOff) return
    isPutOff = false
    takeOutside()
  }).unref()
  if (direct >= MAX_DIRECT) {
    isPutOff = true
    // The event loop would wait for something else first.
    reset.ref()
    return
  }
  direct++
  isScheduled = true
  process.nextTick(takeNow)
}

/** Registers what takes one kind of thing from the bridge. */
export function onWake(kind: Kind, take: () => void): void {
  takers.set(kind, take)
}
