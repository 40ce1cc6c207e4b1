import { debug, isDebug } from './debug'
import { stackOf } from './errors'

/** Reports failing handlers through `process.on('warning')`: the first of each adapter, the rest is in its counters. */
export class Warnings {
  count = 0

  constructor(private readonly what: string) {}

  handlerFailed = (error: unknown): void => {
    this.count += 1
    if (this.count > 1) {
      if (isDebug) debug('a handler of %s failed: %s', this.what, stackOf(error))
      return
    }
    process.emitWarning(
      `a handler of ${this.what} failed; further failures are only counted (stats().handlerErrors)`,
      { type: 'NventWarning', code: 'NVENT_HANDLER', detail: stackOf(error) },
    )
  }
}

/** What has been warned about in this process. */
const warned = new Set<string>()

/** Warns once in a process, through `process.on('warning')`. */
export function warnOnce(code: string, message: string): void {
  if (warned.has(message)) return
  warned.add(message)
  process.emitWarning(message, { type: 'NventWarning', code })
}

/** Warnings of one code in one interval, in ms. Further ones are counted and reported with the next that is. */
const MAX_WARNINGS = 5
const INTERVAL = 60_000

const rates = new Map<string, { since: number, count: number, suppressed: number }>()

/** Warns a few times a minute for each code, through `process.on('warning')`. */
export function warnLimited(code: string, message: string): void {
  const now = performance.now()
  let rate = rates.get(code)
  if (!rate || now - rate.since > INTERVAL) {
    rate = { since: now, count: 0, suppressed: rate?.suppressed ?? 0 }
    rates.set(code, rate)
  }
  rate.count += 1
  if (rate.count > MAX_WARNINGS) {
    rate.suppressed += 1
    debug('%s: %s', code, message)
    return
  }
  const suppressed = rate.suppressed > 0 ? `; ${rate.suppressed} warnings of this kind were left out before` : ''
  rate.suppressed = 0
  process.emitWarning(message + suppressed, { type: 'NventWarning', code })
}
