import type { EventRecord, NewEvent, StoreAdapter } from '../types'
import { compareIds, historySubject } from './names'

/** Firings that are remembered so that the history need not be read again. */
const MAX_REMEMBERED = 10_000

/** What a trigger's history comes to: each of its events has the count in `data.fired`. */
interface Head { id: string | null, fired: number, lastFiredAt: number | undefined }

/**
 * The history of a trigger. Every event is appended on the condition that nothing was appended since the last one that is
 * known, so that each firing is recorded once, by however many instances, and the count is exact.
 */
export class History {
  private readonly subject: string
  private head: Head | undefined
  /** Causes recorded after `since`, oldest first. */
  private readonly recorded = new Map<string, string>()
  private since: string | null = null
  private last: Promise<unknown> = Promise.resolve()

  constructor(private readonly store: StoreAdapter, trigger: string) {
    this.subject = historySubject(trigger)
  }

  /** Returns an id that the history has now, or had a moment ago; null where it is empty. What is recorded later comes after it. */
  async position(): Promise<string | null> {
    return (this.head ?? await this.serialised(() => this.refresh())).id
  }

  /** Reads the count from the store. */
  async count(): Promise<{ fired: number, lastFiredAt: number | undefined }> {
    const { fired, lastFiredAt } = await this.serialised(async () => {
      await this.catchUp()
      return this.head!
    })
    return { fired, lastFiredAt }
  }

  /** Appends an event, unless one of its type and cause was appended after `after`. Resolves with whether it was. */
  record(event: { type: string, [field: string]: unknown, data: { cause: string, [field: string]: unknown } }, after: string | null): Promise<boolean> {
    return this.serialised(async () => {
      await this.refresh()
      for (;;) {
        if (await this.has(event.type, event.data.cause, after)) return false
        if (await this.append(event, event.data.cause)) return true
        await this.catchUp()
      }
    })
  }

  /** Appends an event that has no cause. */
  async note(event: NewEvent): Promise<void> {
    await this.serialised(async () => {
      await this.refresh()
      while (!await this.append(event, undefined)) await this.catchUp()
    })
  }

  private serialised<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.last.then(work, work)
    this.last = mine
    return mine
  }

  /** Appends after the head that is known. Returns whether nothing else was there. */
  private async append(event: NewEvent, cause: string | undefined): Promise<boolean> {
    const { id, fired, lastFiredAt } = this.head!
    const count = fired + Number(event.type === 'trigger.fired')
    try {
      const stored = await this.store.stream.append(this.subject, { ...event, data: { ...event['data'], fired: count } }, { expectedLastId: id })
      this.head = { id: stored.id, fired: count, lastFiredAt: event.type === 'trigger.fired' ? stored.ts : lastFiredAt }
      if (cause !== undefined) this.remember(event.type, cause, stored.id)
      return true
    }
    catch (error) {
      if ((error as { code?: string }).code === 'NVENT_CONFLICT') return false
      // It may have been applied: the next attempt looks.
      throw error
    }
  }

  /** Reads the head where it is not known. */
  private async refresh(): Promise<Head> {
    if (this.head) return this.head
    const [last] = await this.store.stream.read(this.subject, { order: 'desc', limit: 1 })
    const fired = last?.type === 'trigger.fired' ? last : (await this.store.stream.read(this.subject, { types: ['trigger.fired'], order: 'desc', limit: 1 }))[0]
    this.since = last?.id ?? null
    return this.head = { id: last?.id ?? null, fired: Number(last?.data?.fired ?? fired?.data?.fired ?? 0), lastFiredAt: fired?.ts }
  }

  /** Reads what was appended after the head that is known. */
  private async catchUp(): Promise<void> {
    const { id } = await this.refresh()
    const events = await this.store.stream.read(this.subject, id === null ? {} : { after: id })
    for (const event of events) this.follow(event)
    // Of a history that was deleted, or trimmed whole, the head is gone.
    if (events.length === 0 && (await this.store.stream.read(this.subject, { order: 'desc', limit: 1 }))[0]?.id !== id) {
      this.head = { ...this.head!, id: null }
      this.since = null
      this.recorded.clear()
    }
  }

  private follow(event: EventRecord): void {
    const head = this.head!
    this.head = {
      id: event.id,
      fired: Math.max(head.fired, Number(event.data?.fired ?? 0)),
      lastFiredAt: event.type === 'trigger.fired' ? event.ts : head.lastFiredAt,
    }
    if (typeof event.data?.cause === 'string') this.remember(event.type, event.data.cause, event.id)
  }

  private remember(type: string, cause: string, id: string): void {
    this.recorded.set(`${type} ${cause}`, id)
    if (this.recorded.size <= MAX_REMEMBERED) return
    const [oldest, at] = this.recorded.entries().next().value!
    this.recorded.delete(oldest)
    this.since = at
  }

  /** Returns whether a cause was recorded after an id. Up to the head that is known. */
  private async has(type: string, cause: string, after: string | null): Promise<boolean> {
    if (this.recorded.has(`${type} ${cause}`)) return true
    const isKnown = this.since === null || (after !== null && compareIds(after, this.since) >= 0)
    if (isKnown) return false
    const older = await this.store.stream.read(this.subject, { types: [type], ...after === null ? {} : { after } })
    return older.some(event => event.data?.cause === cause)
  }
}
