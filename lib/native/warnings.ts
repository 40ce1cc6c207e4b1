import { debuglog } from 'node:util'
import { bridge, onWake } from './bridge'

/** What native code reports: warnings through `process.emitWarning`, the rest with `NODE_DEBUG=nvent`. */

const debug = debuglog('nvent')

/** Warnings of one code in one interval. Further ones are counted and reported with the next that is. */
const MAX_WARNINGS = 5
const INTERVAL = 60_000

const rates = new Map<string, { since: number, count: number, suppressed: number }>()

onWake('warnings', () => {
  const batch = bridge.takeWarnings()
  if (batch === null) return
  for (const [isWarning, code, message] of JSON.parse(batch) as Array<[boolean, string, string]>) {
    if (isWarning) warn(code, message)
    else debug(message)
  }
})

function warn(code: string, message: string): void {
  const now = performance.now()
  let rate = rates.get(code)
  if (!rate || now - rate.since > INTERVAL) {
    rate = { since: now, count: 0, suppressed: rate?.suppressed ?? 0 }
    rates.set(code, rate)
  }
  rate.count += 1
  if (rate.count > MAX_WARNINGS) {
    rate.suppressed += 1
    return
  }
  const suppressed = rate.suppressed > 0 ? `; ${rate.suppressed} warnings of this kind were left out before` : ''
  rate.suppressed = 0
  process.emitWarning(message + suppressed, { type: 'NventWarning', code })
}
