import { messageOf } from '../errors'
import type { Consumer, EventRecord, StoreAdapter, TriggerCause } from '../types'
import type { Trigger } from './definition'
import type { Fired, Firing } from './firing'
import { historySubject, positionNumber, valueKey } from './names'

/** A window with so many causes fires early. */
export const MAX_WINDOW_EVENTS = 10_000
/** With so many in all windows of a trigger, the oldest fires early. */
const MAX_WAITING = 100_000
/** How often a consumer that stands by looks whether it is at work, in ms. */
const POLL_INTERVAL_MS = 500
/** Attempts to fire a window, and pauses between them, in ms. */
const MAX_ATTEMPTS = 5
const FIRST_DELAY_MS = 200
const PAGE = 1_000

interface Item { cause: TriggerCause, position: string, depth: number }

interface Window {
  key: string
  items: Item[]
  ids: Set<string>
  /** When it began and when it ends, on the monotonic clock. */
  began: number
  deadline: number
  /** The history's last id when it began. */
  history: string | null
  /** Before its first event. */
  before: string | null
  attempts: number
}

/**
 * What is stored of the windows of a trigger: up to `after` everything has fired. Windows since then follow from the feed and
 * from what the history has after `history`.
 */
interface Checkpoint { after: string | null, history: string | null }

/** What the windows ask of their trigger. */
export interface WindowSource {
  store: StoreAdapter
  trigger: Trigger
  firing: Firing
  /** Which events of the feed may be causes. */
  feed: { subjects?: string[], types: string[] }
  /** Returns the cause that an event is and the depth of its runs; undefined where it is none, or the trigger is disabled. */
  causeOf: (subject: string, position: string, event: EventRecord) => Promise<{ cause: TriggerCause, depth: number } | undefined>
  isOn: () => Promise<boolean>
  failed: (error: unknown) => void
}

/**
 * The debounce windows of one trigger. The feed is their log: an event that has been consumed is in a window in memory, and
 * a checkpoint says from where on the feed is read again after a crash, or by the instance that takes over. The first run of
 * a window says, in its `flow.start`, which event is the last one; later ones are in the next window.
 */
export class Windows {
  private readonly open = new Map<string, Window>()
  private loaded: Promise<void> | undefined
  private checkpoint: Checkpoint | undefined
  /** The last event that was taken, and those that share its position. */
  private last: string | null = null
  private readonly atLast = new Set<string>()
  private timer: NodeJS.Timeout | undefined
  /** When it fires, on the monotonic clock. */
  private timerAt = Infinity
  private poll: NodeJS.Timeout | undefined
  private consumer: Consumer | undefined
  private work: Promise<unknown> = Promise.resolve()
  private stopped = false
  /** First causes of windows that were read again because their run has events that they had not. */
  private readonly reread = new Set<string>()

  constructor(private readonly source: WindowSource) {}

  /** Causes in all windows. */
  waiting = 0

  /** Follows whether the consumer is at work here: only then there are windows here. */
  start(consumer: Consumer): void {
    this.consumer = consumer
    const look = (): void => {
      if (!this.isActive()) this.forget()
      else if (!this.loaded) void this.serialised(() => this.load()).catch(this.source.failed)
    }
    look()
    this.poll = setInterval(look, POLL_INTERVAL_MS).unref()
  }

  async stop(): Promise<void> {
    this.stopped = true
    clearInterval(this.poll)
    clearTimeout(this.timer)
    await this.work.catch(() => {})
  }

  /** Takes an event. Resolves when it will be found again after a crash. */
  take(subject: string, position: string, event: EventRecord): Promise<void> {
    return this.serialised(async () => {
      await this.load()
      await this.add(subject, position, event)
      // One that is there is earlier: it leads to the same windows.
      if (!this.checkpoint) await this.save()
    })
  }

  private serialised<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.work.then(work, work)
    this.work = mine
    return mine
  }

  private isActive(): boolean {
    return !this.stopped && this.consumer?.stats().active === true
  }

  private forget(): void {
    this.clear()
    this.loaded = undefined
  }

  private clear(): void {
    clearTimeout(this.timer)
    this.timerAt = Infinity
    this.open.clear()
    this.waiting = 0
  }

  /** Reads the windows that another process, or the one before, had open. */
  private load(): Promise<void> {
    return this.loaded ??= this.read().catch((error) => {
      this.forget()
      throw error
    })
  }

  private async read(): Promise<void> {
    const { store, trigger, feed } = this.source
    this.clear()
    this.atLast.clear()
    this.checkpoint = await store.kv.get<Checkpoint>(valueKey('windows', trigger.id)) ?? undefined
    this.last = this.checkpoint?.after ?? null
    if (!this.checkpoint) return
    const ended = await this.ended(this.checkpoint.history)
    for (let after = this.checkpoint.after; ;) {
      const page = await store.feed.read({ ...feed, limit: PAGE, ...after === null ? {} : { after } })
      for (const { subject, position, event } of page) await this.add(subject, position, event, { ended, history: this.checkpoint.history })
      if (page.length === 0) break
      after = page.at(-1)!.position
    }
  }

  /** Returns up to which position windows have fired since then, by key. */
  private async ended(history: string | null): Promise<Map<string, number>> {
    const { store, trigger } = this.source
    const fired = await store.stream.read(historySubject(trigger.id), { types: ['trigger.fired', 'trigger.failed'], ...history === null ? {} : { after: history } })
    const ended = new Map<string, number>()
    for (const { data } of fired) {
      if (typeof data?.through === 'string') ended.set(data.key, Math.max(ended.get(data.key) ?? 0, positionNumber(data.through)))
    }
    return ended
  }

  /** Adds an event to its window. `past`: what is known of windows that have fired, where the feed is read again. */
  private async add(subject: string, position: string, event: EventRecord, past?: { ended: Map<string, number>, history: string | null }): Promise<void> {
    const { trigger, firing, causeOf } = this.source
    const identity = `${subject}@${event.id}`
    if (this.last !== null) {
      const order = positionNumber(position) - positionNumber(this.last)
      if (order < 0 || (order === 0 && (this.atLast.size === 0 || this.atLast.has(identity)))) return
      if (order > 0) this.atLast.clear()
    }
    const found = await causeOf(subject, position, event)
    const key = found && (trigger.debounce!.key?.(found.cause) ?? '')
    if (found && typeof key !== 'string') throw new TypeError(`debounce.key of the trigger ${JSON.stringify(trigger.id)} returned no string`)
    if (found && positionNumber(position) > (past?.ended.get(key!) ?? 0)) {
      const before = this.last ?? this.consumer!.stats().position
      await this.put(key!, { ...found, position }, { before, history: past ? past.history : await firing.history.position() }, past !== undefined)
    }
    this.last = position
    this.atLast.add(identity)
  }

  /**
   * Puts an item into its window, or opens one. `since` is where the feed and the history are before a window that begins with
   * the item; `isPast` says that it was read again.
   */
  private async put(key: string, item: Item, since: Pick<Window, 'before' | 'history'>, isPast: boolean): Promise<void> {
    const { wait, maxWait } = this.source.trigger.debounce!
    const now = performance.now()
    // Time that has passed since it was stored counts, by the wall clock, where the process that knew it is gone.
    const age = isPast ? Math.max(0, Date.now() - item.cause.at) : 0
    let window = this.open.get(key)
    if (window) {
      // By the times in the log, what came after a window's end is in the next one, also where it is only read now.
      const isOver = item.cause.at - window.items.at(-1)!.cause.at >= wait || item.cause.at - window.items[0]!.cause.at >= maxWait
      if ((isOver || window.items.length >= MAX_WINDOW_EVENTS) && await this.end(window)) window = undefined
    }
    if (!window) {
      window = { key, items: [], ids: new Set(), began: now - age, deadline: 0, ...since, attempts: 0 }
      this.open.set(key, window)
    }
    if (window.ids.has(item.cause.id)) return
    window.ids.add(item.cause.id)
    window.items.push(item)
    this.waiting += 1
    window.deadline = Math.min(now + wait - age, window.began + maxWait)
    if (window.items.length >= MAX_WINDOW_EVENTS) window.deadline = now
    if (this.waiting > MAX_WAITING) {
      const oldest = this.open.values().next().value!
      oldest.deadline = now
      this.wakeAt(now)
    }
    this.wakeAt(window.deadline)
  }

  /** Makes sure that windows are looked at then. */
  private wakeAt(deadline: number): void {
    if (this.stopped || deadline >= this.timerAt) return
    clearTimeout(this.timer)
    this.timerAt = deadline
    const delay = Math.min(Math.max(0, deadline - performance.now()), 0x7FFFFFFF)
    this.timer = setTimeout(() => {
      this.timerAt = Infinity
      this.serialised(() => this.due()).catch(this.source.failed)
    }, delay).unref()
  }

  /** Fires the windows that have ended. */
  private async due(): Promise<void> {
    if (!this.isActive()) return this.forget()
    const now = performance.now()
    for (const window of [...this.open.values()].filter(({ deadline }) => deadline <= now)) await this.end(window)
    for (const { deadline } of this.open.values()) this.wakeAt(deadline)
    await this.save()
  }

  /** Fires a window and removes it. Returns false where that is tried again later. */
  private async end(window: Window): Promise<boolean> {
    const { firing, isOn, failed } = this.source
    try {
      while (window.items.length > 0 && await isOn()) {
        const { endsAt } = await this.fire(window, window.items)
        if (endsAt === undefined) break
        // The run was started with another end of the window, before a crash or by another instance.
        const end = positionNumber(endsAt)
        const first = window.items[0]!.cause.id
        if (positionNumber(window.items.at(-1)!.position) < end && !this.reread.has(first)) {
          this.reread.add(first)
          this.forget()
          return false
        }
        const rest = window.items.filter(({ position }) => positionNumber(position) > end)
        const part = window.items.slice(0, window.items.length - rest.length)
        if (part.length > 0) await firing.fire(causeOfAll(part), depthOfAll(part), { window: { key: window.key, through: endsAt } })
        this.waiting -= part.length
        window.items = rest
      }
    }
    catch (error) {
      failed(error)
      window.attempts += 1
      const isRetryable = (error as { retryable?: unknown } | undefined)?.retryable === true
      if (isRetryable || window.attempts < MAX_ATTEMPTS) {
        window.deadline = performance.now() + FIRST_DELAY_MS * 2 ** Math.min(window.attempts - 1, 7)
        return false
      }
      if (!await this.giveUp(window, error)) return false
    }
    if (this.open.get(window.key) === window) {
      this.open.delete(window.key)
      this.waiting -= window.items.length
    }
    return true
  }

  private fire(window: Window, items: Item[]): Promise<Fired> {
    return this.source.firing.fire(causeOfAll(items), depthOfAll(items), { window: { key: window.key, through: items.at(-1)!.position } })
  }

  /** Records a window that has failed too often. Resolves with false where that fails, too. */
  private async giveUp(window: Window, error: unknown): Promise<boolean> {
    const { firing, trigger, failed } = this.source
    const last = window.items.at(-1)!
    return firing.history.note({
      type: 'trigger.failed',
      trigger: { id: trigger.id },
      data: {
        cause: window.items[0]!.cause.id, causes: window.items.map(({ cause }) => cause.id), key: window.key, through: last.position,
        error: messageOf(error),
      },
    }).then(() => true, (error) => {
      failed(error)
      return false
    })
  }

  /** Stores from where on the feed must be read again. */
  private async save(): Promise<void> {
    const { store, trigger, firing } = this.source
    let first: Window | undefined
    for (const window of this.open.values()) {
      if (!first || positionNumber(window.before) < positionNumber(first.before)) first = window
    }
    const next = first ? { after: first.before, history: first.history } : { after: this.last, history: await firing.history.position() }
    await store.kv.set(valueKey('windows', trigger.id), next)
    this.checkpoint = next
  }
}

function causeOfAll(items: Item[]): TriggerCause {
  const last = items.at(-1)!.cause
  const { id } = items[0]!.cause
  return { ...last, id, events: items.flatMap(({ cause }) => cause.event ?? []) }
}

const depthOfAll = (items: Item[]): number => items.reduce((most, { depth }) => Math.max(most, depth), 0)
