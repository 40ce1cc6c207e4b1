import type { NativeCalendar } from '../native'
import type { StoreAdapter } from '../types'
import { valueKey } from './names'

/** The wall clock is looked at so often at least, in ms: it may be set. */
const MAX_SLEEP_MS = 1_000

/**
 * The due times of one trigger, by the wall clock. Every instance computes them; what fires is one cause for each. Of those that
 * were missed, because no instance was there or because the clock was set forward, the latest fires. A clock that was set back
 * brings due times again, which have fired.
 */
export class Schedule {
  private timer: NodeJS.Timeout | undefined
  private stopped = false
  /** Due times up to this one are over. */
  private until = 0
  private work: Promise<void> = Promise.resolve()

  constructor(
    private readonly store: StoreAdapter,
    private readonly trigger: string,
    private readonly calendar: NativeCalendar,
    /** Fires a due time. When it resolves the cause is stored. */
    private readonly fire: (due: number) => Promise<void>,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** Returns the next due time, in ms; null where there is none. */
  next(): number | null {
    return this.calendar.next(Date.now())
  }

  async start(): Promise<void> {
    this.stopped = false
    const key = valueKey('due', this.trigger)
    const stored = await this.store.kv.get<number>(key)
    this.until = stored ?? Date.now()
    if (stored === null) await this.store.kv.set(key, this.until)
    this.tick()
  }

  async stop(): Promise<void> {
    this.stopped = true
    clearTimeout(this.timer)
    await this.work
  }

  private tick(): void {
    this.work = this.look().catch(this.failed).then(() => {
      if (this.stopped) return
      const now = Date.now()
      const sleep = Math.min(Math.max(0, (this.calendar.next(now) ?? Infinity) - now), MAX_SLEEP_MS)
      this.timer = setTimeout(() => this.tick(), sleep).unref()
    })
  }

  private async look(): Promise<void> {
    const now = Date.now()
    if (this.until > now) this.until = now
    const due = this.calendar.last(this.until, now)
    if (due === null) return
    await this.fire(due)
    this.until = due
    await this.store.kv.set(valueKey('due', this.trigger), due)
  }
}
