/**
 * The start of a server: the adapters are opened until that succeeds, and requests wait for it for a bounded time.
 *
 * Nitro does not wait for its plugins, so a request may arrive first. A directory may still be locked by the process
 * that this one replaces, and Redis may start later.
 */
import { NventError } from 'nvent-native/native'
import type { NitroApp } from 'nitropack'
import { OPEN_TIMEOUT } from './config.js'

/** Pauses between attempts to open, in ms; the last one repeats. */
const RETRY_DELAYS = [100, 250, 500, 1_000, 2_000]

export class Startup {
  /** That of this server, where it opens the adapters itself. */
  static current: Startup | undefined

  /** Why the adapters are not open; undefined while nothing has failed. */
  cause: unknown
  private state: 'opening' | 'ready' | 'failed' | 'closed' = 'opening'
  private readonly began = performance.now()
  private settle!: () => void
  private readonly settled = new Promise<void>(resolve => this.settle = resolve)
  private readonly aborted = new AbortController()

  /** Whether the adapters are being opened. */
  get isOpening(): boolean {
    return this.state === 'opening'
  }

  /** Makes every request wait for {@link Startup.wait}. `openTimeout` is in ms. */
  constructor(nitroApp: NitroApp, public openTimeout: number = OPEN_TIMEOUT) {
    nitroApp.hooks.hook('request', () => this.state === 'opening' ? this.wait() : undefined)
  }

  /**
   * Calls `open` until it succeeds. Rejects at once with a configuration error, and when the server closes meanwhile.
   * Prints one line for each cause of failure, and one when `open` has succeeded after all.
   */
  async open<T>(open: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      if (this.state === 'closed') throw new NventError('NVENT_CLOSED', 'the server closed before its adapters were open')
      try {
        const opened = await open()
        if (attempt > 0) console.info(`[nvent-native] the adapters are open, ${this.elapsed()} after the start`)
        this.cause = undefined
        return opened
      }
      catch (error) {
        if (isConfigurationError(error)) throw error
        if (messageOf(error) !== messageOf(this.cause)) {
          console.error(`[nvent-native] cannot open the adapters yet: ${messageOf(error)}. Trying again until it succeeds.`)
        }
        this.cause = error
      }
      await pause(RETRY_DELAYS[Math.min(attempt, RETRY_DELAYS.length - 1)]!, this.aborted.signal)
    }
  }

  /** Lets waiting requests continue. */
  ready(): void {
    if (this.state !== 'opening') return
    this.state = 'ready'
    this.settle()
  }

  /** Lets waiting requests continue, with `cause` for those that use an adapter. A configuration error ends the process. */
  fail(cause: unknown): void {
    if (this.state !== 'opening') return
    this.state = 'failed'
    this.cause = cause
    this.settle()
    if (!isConfigurationError(cause)) return console.error('[nvent-native] the start failed:', cause)
    console.error(`[nvent-native] wrong configuration: ${messageOf(cause)}`)
    // The development server stays, and starts again once the file is saved.
    if (!import.meta.dev) process.exit(1)
  }

  /** Ends {@link Startup.open}. */
  close(): void {
    this.state = 'closed'
    this.settle()
    this.aborted.abort()
  }

  /** Resolves when the server is ready or has failed, at the latest `openTimeout` ms after the start. */
  async wait(): Promise<void> {
    if (this.state !== 'opening') return
    const remaining = this.openTimeout - (performance.now() - this.began)
    if (remaining <= 0) return
    const timeout = new AbortController()
    await Promise.race([this.settled, pause(remaining, timeout.signal)])
    timeout.abort()
  }

  private elapsed(): string {
    return `${((performance.now() - this.began) / 1000).toFixed(1)} s`
  }
}

/** Returns whether the same configuration can never succeed. */
export function isConfigurationError(error: unknown): boolean {
  return error instanceof NventError && error.code === 'NVENT_INVALID'
}

export const messageOf = (error: unknown): string | undefined =>
  error instanceof Error ? `${error.message}${error instanceof NventError ? ` (${error.code})` : ''}` : error === undefined ? undefined : String(error)

/** Resolves after `ms`, or when the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    }, { once: true })
  })
}
