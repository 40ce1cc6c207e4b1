/** When a delivery is attempted again. */

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DELAYS_MS = [5 * SECOND_MS, 30 * SECOND_MS, 2 * MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS]
/** The longest time that a receiver may ask for. */
const MAX_RETRY_AFTER_MS = 24 * HOUR_MS
/** The part of a delay that chance may add, so that what failed together is not repeated together. */
const JITTER = 0.1

/** How often is looked for deliveries that are pending and have no job, and how long they must have been due. */
const SWEEP_INTERVAL_MS = 10 * MINUTE_MS

/** Other times, for tests: there is no option for them. */
const key = Symbol.for('nvent-native.webhook-times')
const injected = globalThis as { [key]?: { delays?: number[], sweepInterval?: number } }

export const sweepInterval = (): number => injected[key]?.sweepInterval ?? SWEEP_INTERVAL_MS

/** Returns the wait after so many attempts, in ms. */
export function delayAfter(attempts: number, retryAfter: number): number {
  const delays = injected[key]?.delays ?? DELAYS_MS
  const delay = delays[Math.min(attempts, delays.length) - 1]!
  return Math.round(Math.max(delay, retryAfter) * (1 + JITTER * Math.random()))
}

/** Returns the wait that a `Retry-After` asks for, in ms: seconds, or a date. 0 for none, and for what is neither. */
export function retryAfterOf(status: number, header: string | null, now: number): number {
  if (header === null || (status !== 429 && status !== 503)) return 0
  const wait = /^\d{1,15}$/.test(header) ? Number(header) * SECOND_MS : Date.parse(header) - now
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), MAX_RETRY_AFTER_MS) : 0
}
