import { stackOf } from './errors'

/** Reports failing handlers through `process.on('warning')`: the first of each adapter, the rest is in its counters. */
export class Warnings {
  count = 0

  constructor(private readonly what: string) {}

  handlerFailed = (error: unknown): void => {
    this.count += 1
    if (this.count > 1) return
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
