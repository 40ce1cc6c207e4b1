import { json } from '../check'
import type { EventRecord, StoreAdapter, TriggerCause, TriggerKind } from '../types'
import { CAUSE_INDEX, CAUSE_TYPE, causeSubject } from './names'

/** How long a cause is kept after it was stored, in ms. A webhook is refused as too old long before. */
const KEEP_MS = 24 * 60 * 60 * 1000
/** Before the first sweep, in ms: what was stored while no instance was there is fired first. */
const FIRST_SWEEP_MS = 10 * 60 * 1000
const SWEEP_INTERVAL_MS = 60 * 60 * 1000
const PAGE = 500

/**
 * Causes that are no events of the application: requests, due times, and calls of `fire`. Each is stored under a subject of its
 * own before it fires, on the condition that this is empty, so that of one id there is one, and none is lost by a crash: the
 * consumer of the trigger finds it.
 */
export class Causes {
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly store: StoreAdapter, private readonly failed: (error: unknown) => void) {}

  /** Stores a cause. `created` is false where one of its id is there, which is what resolves then. */
  async add(trigger: string, kind: TriggerKind, id: string, data: unknown, at: number): Promise<{ cause: TriggerCause, created: boolean }> {
    const subject = causeSubject(trigger, id)
    json('data', data ?? null)
    // First, so that it is removed one day also if this process ends in between.
    await this.store.index.add(CAUSE_INDEX, subject, -Date.now())
    try {
      const event = await this.store.stream.append(subject, { type: CAUSE_TYPE, trigger: { id: trigger, kind, cause: id, at }, data }, { expectedLastId: null })
      return { cause: causeOf(event), created: true }
    }
    catch (error) {
      if ((error as { code?: string }).code !== 'NVENT_CONFLICT') throw error
      const [event] = await this.store.stream.read(subject, { limit: 1 })
      return { cause: event ? causeOf(event) : { id, trigger, kind, data, at }, created: false }
    }
  }

  start(): void {
    this.schedule(FIRST_SWEEP_MS)
  }

  stop(): void {
    clearTimeout(this.timer)
  }

  private schedule(delay: number): void {
    this.timer = setTimeout(() => {
      this.sweep().catch(this.failed).finally(() => this.schedule(SWEEP_INTERVAL_MS))
    }, delay).unref()
  }

  /** Removes causes that can no longer be sent again. */
  private async sweep(): Promise<void> {
    for (;;) {
      const old = (await this.store.index.read(CAUSE_INDEX, { limit: PAGE })).filter(({ score }) => -score < Date.now() - KEEP_MS)
      for (const { id } of old) {
        await this.store.stream.delete(id)
        await this.store.index.delete(CAUSE_INDEX, id)
      }
      if (old.length < PAGE) return
    }
  }
}

/** Returns the cause in a stored event. */
export function causeOf(event: EventRecord): TriggerCause {
  const { id, kind, cause, at } = event['trigger']
  return { id: cause, trigger: id, kind, data: event.data, event, at }
}

/** Returns the cause that an event of the application is. */
export const eventCause = (trigger: string, subject: string, event: EventRecord): TriggerCause =>
  ({ id: `${subject}@${event.id}`, trigger, kind: 'event', data: event.data, event, at: event.ts })
