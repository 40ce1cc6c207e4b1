import { whileRetryable } from '../flow/retry'
import { literal } from '../glob'
import type { Consumer, ConsumerContext, EventRecord, TriggerCause } from '../types'
import { causeOf, eventCause } from './causes'
import type { Causes } from './causes'
import type { Trigger } from './definition'
import { Firing } from './firing'
import type { Starts } from './firing'
import { CAUSE_TYPE, causePrefix } from './names'
import { Schedule } from './schedule'
import { Switch } from './state'
import { Windows } from './windows'

/** Subjects whose events fire a trigger at a time. */
const CONCURRENCY = 16

interface Found { cause: TriggerCause, depth: number }

/** A trigger at work: its consumer, and what else fires it. */
export class ActiveTrigger {
  readonly firing: Firing
  readonly gate: Switch
  consumer!: Consumer
  readonly schedule: Schedule | undefined
  readonly windows: Windows | undefined
  private readonly feed: { subjects?: string[], types: string[] }

  constructor(readonly trigger: Trigger, private readonly starts: Starts, private readonly causes: Causes, private readonly failed: (error: unknown) => void) {
    const { store } = starts.parts
    this.firing = new Firing(trigger, starts)
    this.gate = new Switch(store, trigger.id, trigger.enabled)
    // `fire` stores causes of any trigger.
    this.feed = trigger.kind === 'event'
      ? { types: [...trigger.types, CAUSE_TYPE] }
      : { subjects: [`${literal(causePrefix(trigger.id))}*`], types: [CAUSE_TYPE] }
    this.schedule = trigger.calendar && new Schedule(store, trigger.id, trigger.calendar, due => this.fireDue(due), failed)
    this.windows = trigger.debounce && new Windows({
      store, trigger, firing: this.firing, feed: this.feed, isOn: () => this.gate.isOn(), failed,
      causeOf: async (subject, position, event) => this.isByHand(subject, event) ? undefined : this.find(subject, position, event),
    })
  }

  get consumerName(): string {
    return `trigger:${this.trigger.id}`
  }

  async start(): Promise<void> {
    let ready = (): void => {}
    const started = new Promise<void>(resolve => ready = resolve)
    // Windows are in the order of the feed.
    const concurrency = this.windows ? 1 : CONCURRENCY
    this.consumer = await this.starts.parts.store.consume(this.consumerName, async (event, context) => {
      await started
      await this.handle(event, context)
    }, { ...this.feed, concurrency })
    this.windows?.start(this.consumer)
    ready()
    await this.schedule?.start()
  }

  async stop(): Promise<void> {
    await this.schedule?.stop()
    await this.consumer?.stop()
    await this.windows?.stop()
    await this.firing.idle()
  }

  async set(enabled: boolean): Promise<void> {
    if (!await this.gate.set(enabled)) return
    await this.firing.history.note({ type: enabled ? 'trigger.enabled' : 'trigger.disabled', trigger: { id: this.trigger.id }, data: {} })
  }

  /** Fires now. What `input` throws rejects before anything is stored. */
  async fireByHand(id: string, data: unknown): Promise<{ runIds: string[], created: boolean }> {
    const at = Date.now()
    const value = await this.firing.inputOf({ id, trigger: this.trigger.id, kind: 'manual', data, at })
    const { cause, created } = await this.causes.add(this.trigger.id, 'manual', id, data, at)
    const { runIds, startedAt } = await this.firing.fire(cause, 0, created ? { input: { value } } : {})
    // The consumer may have been first; runs that are older are of a cause that was removed meanwhile.
    return { runIds, created: created && startedAt >= cause.event!.ts }
  }

  /** Stores a request as a cause and fires it. Resolves with false where one of its id was stored before. */
  async receive(id: string, data: unknown): Promise<boolean> {
    const { cause, created } = await this.causes.add(this.trigger.id, 'webhook', id, data, Date.now())
    // The consumer would do it, too: here it is done at once, whichever instance is at work for the trigger.
    if (created && !this.windows) this.firing.fire(cause, 0).catch(this.failed)
    return created
  }

  private async fireDue(due: number): Promise<void> {
    if (!await this.gate.isOnAt(due)) return
    const { cause, created } = await this.causes.add(this.trigger.id, 'schedule', new Date(due).toISOString(), { dueAt: due }, due)
    if (created) this.firing.fire(cause, 0).catch(this.failed)
  }

  /** Handles an event of the feed. An outage of the store is waited for; other failures count as an attempt. */
  private async handle(event: EventRecord, { subject, position, signal }: ConsumerContext): Promise<void> {
    // What was trimmed before it was read.
    if (subject === '') return
    await whileRetryable(async () => {
      if (this.windows && !this.isByHand(subject, event)) return this.windows.take(subject, position, event)
      const found = await this.find(subject, position, event)
      if (found) await this.firing.fire(found.cause, found.depth)
    }, signal)
  }

  private isOwn(subject: string, event: EventRecord): boolean {
    return event.type === CAUSE_TYPE && event['trigger']?.id === this.trigger.id && subject.startsWith(causePrefix(this.trigger.id))
  }

  private isByHand(subject: string, event: EventRecord): boolean {
    return this.isOwn(subject, event) && event['trigger'].kind === 'manual'
  }

  /** Returns the cause that an event is; undefined where it is none, or came while the trigger was disabled. */
  private async find(subject: string, position: string, event: EventRecord): Promise<Found | undefined> {
    const { trigger, gate, firing } = this
    const isOwn = this.isOwn(subject, event)
    if (!isOwn && (event.type === CAUSE_TYPE || trigger.kind !== 'event' || !trigger.matches(subject, event))) return
    if (!await gate.isOnFor(position)) return
    if (isOwn) return { cause: causeOf(event), depth: 0 }
    return { cause: eventCause(trigger.id, subject, event), depth: await firing.depthOf(subject, event) + 1 }
  }
}
