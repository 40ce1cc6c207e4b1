import { toPromise } from './errors'
import { offDelivery, onDelivery } from './native'

/**
 * Subscriptions that share their messages, deeply frozen: a message is parsed once and crosses once for all handlers of one topic
 * with the same options. A handler that is at work has a queue of its own here, with the bounds of its buffer.
 */

type Overflow = 'drop-oldest' | 'drop-newest'
type Handler = (message: any, topic: string) => unknown

/** What subscriptions of one group have in common. */
export interface SharedOptions {
  topic: string
  /** The options of the native subscription, as JSON. */
  options: string
  buffer: number
  overflow: Overflow
}

/** What the stream counts and does. */
export interface SharedHooks {
  /** Makes a native subscription. */
  subscribe: (topic: string, options: string) => Promise<number>
  unsubscribe: (id: number) => Promise<void>
  delivered: (message: any, count: number) => void
  failed: (error: unknown) => void
}

/** Returns the message that reports missed ones, as native code makes it. */
const gapOf = (topic: string, missed: number): object =>
  Object.freeze({ type: 'stream.gap', data: Object.freeze({ reason: 'overflow', topic, missed }), timestamp: Date.now() })

/** One subscription with `shared`. Its handler is called with what all of its group get. */
class Member {
  /** What waits while its handler is at work: at most `buffer` messages. */
  private readonly waiting: Array<[message: any, topic: string]> = []
  private isBusy = false
  private isClosed = false
  private missed = 0

  constructor(private readonly handle: Handler, private readonly group: Group) {}

  get size(): number {
    return this.waiting.length
  }

  deliver(message: any, topic: string): void {
    if (this.isBusy) this.enqueue(message, topic)
    else if (!this.isClosed) this.call(message, topic)
  }

  close(): void {
    this.isClosed = true
    this.waiting.length = 0
    this.missed = 0
  }

  private enqueue(message: any, topic: string): void {
    if (this.isClosed) return
    const { buffer, overflow } = this.group.shared
    if (this.waiting.length >= buffer) {
      this.missed += 1
      this.group.dropped += 1
      // That something was missed is never dropped.
      if (overflow === 'drop-newest' && message.type !== 'stream.gap') return
      this.waiting.shift()
    }
    this.waiting.push([message, topic])
  }

  private call(message: any, topic: string): void {
    let promise: Promise<unknown> | undefined
    try {
      promise = toPromise(this.handle(message, topic))
    }
    catch (error) {
      this.group.hooks.failed(error)
      return
    }
    if (!promise) return
    this.isBusy = true
    void this.settle(promise)
  }

  /** Waits for the handler, then gives it what has come meanwhile, a gap first where some of that was dropped. */
  private async settle(promise: Promise<unknown>): Promise<void> {
    try {
      await promise
    }
    catch (error) {
      this.group.hooks.failed(error)
    }
    this.isBusy = false
    while (!this.isBusy && !this.isClosed && (this.missed > 0 || this.waiting.length > 0)) {
      if (this.missed > 0) {
        const gap = gapOf(this.group.shared.topic, this.missed)
        this.missed = 0
        this.group.hooks.delivered(gap, 1)
        this.call(gap, this.group.shared.topic)
      }
      else this.call(...this.waiting.shift()!)
    }
  }
}

/** Subscriptions with `shared` to one topic with the same options: one native subscription, whose messages all of them get. */
class Group {
  /** A new array each time: one that comes or goes while a message is delivered does not change who gets it. */
  private members: Member[] = []
  dropped = 0
  readonly opened: Promise<number>

  constructor(readonly shared: SharedOptions, readonly hooks: SharedHooks) {
    this.opened = this.open()
  }

  get size(): number {
    return this.members.length
  }

  get waiting(): number {
    return this.members.reduce((sum, member) => sum + member.size, 0)
  }

  add(handle: Handler): Member {
    const member = new Member(handle, this)
    this.members = [...this.members, member]
    return member
  }

  remove(member: Member): void {
    member.close()
    this.members = this.members.filter(other => other !== member)
  }

  closeMembers(): void {
    for (const member of this.members) member.close()
    this.members = []
  }

  /** Ends the native subscription. */
  async close(): Promise<void> {
    const id = await this.opened
    offDelivery(id)
    await this.hooks.unsubscribe(id)
  }

  private async open(): Promise<number> {
    const { topic, options } = this.shared
    const id = await this.hooks.subscribe(topic, options)
    onDelivery(id, false, (message, on) => this.deliver(message, on), this.hooks.failed, true)
    return id
  }

  private deliver(message: any, topic: string): void {
    const { members } = this
    this.hooks.delivered(message, members.length)
    for (let i = 0; i < members.length; i++) members[i]!.deliver(message, topic)
  }
}

/** The subscriptions with `shared` of one stream. */
export class SharedSubscriptions {
  private readonly groups = new Map<string, Group>()
  /** Messages that overflowed, of groups that are gone. */
  private droppedBefore = 0
  private joined = 0

  constructor(private readonly hooks: SharedHooks) {}

  /** Adds a subscription. Returns its id, and what ends it. */
  async subscribe(shared: SharedOptions, handle: Handler): Promise<{ id: string, end: () => Promise<void> }> {
    const key = JSON.stringify([shared.topic, shared.options, shared.buffer])
    let group = this.groups.get(key)
    if (!group) this.groups.set(key, group = new Group(shared, this.hooks))
    const joined = group
    const member = joined.add(handle)
    this.joined += 1
    const number = this.joined
    const remove = (): boolean => {
      joined.remove(member)
      if (joined.size > 0 || this.groups.get(key) !== joined) return false
      this.groups.delete(key)
      this.droppedBefore += joined.dropped
      return true
    }
    try {
      return {
        id: `${await joined.opened}.${number}`,
        end: async () => {
          if (remove()) await joined.close()
        },
      }
    }
    catch (error) {
      remove()
      throw error
    }
  }

  /** Returns how many subscriptions there are beyond the native ones: of one topic, or in all. */
  extra(topic?: string): number {
    let extra = 0
    for (const group of this.groups.values()) {
      if (topic === undefined || group.shared.topic === topic) extra += Math.max(0, group.size - 1)
    }
    return extra
  }

  stats(): { dropped: number, waiting: number } {
    let [dropped, waiting] = [this.droppedBefore, 0]
    for (const group of this.groups.values()) {
      dropped += group.dropped
      waiting += group.waiting
    }
    return { dropped, waiting }
  }

  /** Ends all of them, without the native subscriptions, which end with the stream. */
  close(): void {
    for (const group of this.groups.values()) {
      group.closeMembers()
      void group.opened.then(offDelivery, () => {})
    }
    this.groups.clear()
  }
}
