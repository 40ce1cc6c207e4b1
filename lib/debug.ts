import { debuglog } from 'node:util'

/** Lines that `NODE_DEBUG=nvent` prints, beside the warnings: what opens and closes, and what is repeated. */

const print = debuglog('nvent')

/** Lines in one interval. Further ones are counted, and their number is printed with the next that is. */
const MAX_LINES = 100
const INTERVAL = 1_000

let since = -Infinity
let lines = 0
let omitted = 0

/** Whether lines are printed. What is costly to print is only made where they are. */
export const isDebug = print.enabled

/** Prints a line, as `util.format` writes it. */
export function debug(format: string, ...values: unknown[]): void {
  if (!isDebug) return
  const now = performance.now()
  if (now - since > INTERVAL) {
    since = now
    lines = 0
  }
  lines += 1
  if (lines > MAX_LINES) {
    // Only now: a listener of the process keeps the context that loaded this.
    if (omitted === 0) process.off('exit', atExit).once('exit', atExit)
    omitted += 1
    return
  }
  if (omitted > 0) print('%d lines were left out: more than %d in a second', omitted, MAX_LINES)
  omitted = 0
  print(format, ...values)
}

/** Prints how many lines were left out at the end, which no later line says. */
function atExit(): void {
  if (omitted > 0) print('%d lines were left out: more than %d in a second', omitted, MAX_LINES)
}
