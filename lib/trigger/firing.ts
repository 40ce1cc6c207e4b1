import { json } from '../check'
import { locate, startRun } from '../flow/runs'
import type { Located } from '../flow/runs'
import { FlowRuntime, runtimes } from '../flow/runtime'
import type { EventRecord, FlowDefinition, QueueAdapter, StoreAdapter, TriggerCause, TriggerStats } from '../types'
import type { Trigger } from './definition'
import { History } from './history'
import { runIdOf } from './names'

/** Links of a chain of flows that start each other. */
const MAX_DEPTH = 32
/** Causes and runs that are remembered. */
const MAX_REMEMBERED = 10_000
/** How much earlier than its cause, in ms, an event may seem to be by the clocks of two writers. */
const CLOCK_TOLERANCE_MS = 60 * 60 * 1000

/** What a run that was started by a trigger has in its `flow.start`. */
export interface StartedBy {
  /** The trigger. */
  id: string
  cause: string
  kind: string
  depth: number
  /** The history when it fired: `trigger.fired` comes after it. */
  after: string | null
  /** Debounced: the position of the last event of the window. */
  through?: string
}

export interface Fired {
  runIds: string[]
  /** When the first run was started, by the store's clock; Infinity: by this call. */
  startedAt: number
  /** The run was started before with a window that ends there, and not where this one does: nothing was done. */
  endsAt?: string
}

/** A window of causes that start one run. */
export interface WindowEnd {
  key: string
  /** The position of its last event. */
  through: string
}

/** What the firings of all triggers of a wiring use. */
export interface FiringParts {
  store: StoreAdapter
  queue: QueueAdapter | undefined
  flows: FlowDefinition[] | undefined
  counters: Pick<TriggerStats, 'fired' | 'started' | 'failed' | 'depth'>
}

/** Finds the flows that triggers start. */
export class Starts {
  private readonly own: FlowRuntime | undefined

  constructor(readonly parts: FiringParts) {
    const { flows, store, queue } = parts
    this.own = flows && queue ? new FlowRuntime({ flows, store, queue }) : undefined
  }

  locate(id: string): Located {
    for (const runtime of this.candidates()) {
      const flow = runtime.flow(id)
      if (flow) return { flow, runtime }
    }
    return locate(id)
  }

  /** Returns the subject of a run. */
  subject(flowName: string, runId: string): string {
    const [first] = this.candidates()
    return first ? first.subject(flowName, runId) : `nq:flow:${runId}`
  }

  /** Returns the runtimes of the store, started ones first: these know which process runs a step. */
  private candidates(): FlowRuntime[] {
    const started = [...runtimes].filter(({ store }) => store === this.parts.store)
    return this.own ? [...started, this.own] : started
  }
}

/** Fires one trigger: starts its runs and records it, each once for every cause. */
export class Firing {
  readonly history: History
  private readonly depths = new Map<string, number>()
  /** Causes that are done. */
  private readonly done = new Map<string, Fired>()
  private readonly underWay = new Map<string, Promise<Fired>>()

  constructor(private readonly trigger: Trigger, private readonly starts: Starts) {
    this.history = new History(starts.parts.store, trigger.id)
  }

  /** Returns the ids of the runs that a cause starts. */
  runIds(cause: string): string[] {
    return this.trigger.start.map(flow => runIdOf(this.trigger.id, flow, cause))
  }

  /** Starts the runs of a cause that are not there yet, and records the firing where it is not recorded. Safe to repeat after any failure. */
  fire(cause: TriggerCause, depth: number, { window, input }: { window?: WindowEnd, input?: { value: unknown } } = {}): Promise<Fired> {
    const known = this.done.get(cause.id)
    if (known && !window) return Promise.resolve(known)
    const before = this.underWay.get(cause.id)
    if (before) return before
    const work = this.attempt(cause, depth, window, input).catch((error) => {
      this.starts.parts.counters.failed += 1
      throw error
    }).finally(() => this.underWay.delete(cause.id))
    this.underWay.set(cause.id, work)
    return work
  }

  /** Waits until no firing is under way. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.underWay.values())
  }

  /** Returns the number of links that led to an event: 0 where no trigger was among them. */
  async depthOf(subject: string, event: EventRecord): Promise<number> {
    if (typeof event['trigger']?.depth === 'number') return event['trigger'].depth
    const { runId } = event
    if (typeof runId !== 'string') return 0
    const known = this.depths.get(runId)
    if (known !== undefined) return known
    const start = await this.startOf(subject) ?? await this.startOf(this.starts.subject(event.flowName ?? '', runId))
    const depth = Number(start?.['trigger']?.depth ?? 0)
    bounded(this.depths, runId, depth)
    return depth
  }

  /** Returns the input of a cause's runs. */
  async inputOf(cause: TriggerCause): Promise<unknown> {
    const input: unknown = this.trigger.input ? await this.trigger.input(cause) : cause.data
    json('input', input ?? null)
    return input
  }

  private async startOf(subject: string): Promise<EventRecord | undefined> {
    return (await this.starts.parts.store.stream.read(subject, { types: ['flow.start'], limit: 1 }))[0]
  }

  private async attempt(cause: TriggerCause, depth: number, window: WindowEnd | undefined, given: { value: unknown } | undefined): Promise<Fired> {
    if (depth > MAX_DEPTH) return this.stop(cause, depth)
    const { trigger, history, starts } = this
    const { counters } = starts.parts
    const input = given ? given.value : await this.inputOf(cause)
    const runIds = this.runIds(cause.id)
    let after = await history.position()
    let startedAt = Infinity
    for (const [i, flow] of trigger.start.entries()) {
      const startedBy: StartedBy = { id: trigger.id, cause: cause.id, kind: cause.kind, depth, after, ...window ? { through: window.through } : {} }
      const run = await startRun(starts.locate(flow), runIds[i]!, input, { trigger: startedBy }, cause.event?.traceparent)
      if (run.created) counters.started += 1
      else if (i === 0) {
        // The first run decides what belongs to the cause, and since when the firing may be recorded.
        const first = run.start?.['trigger'] as StartedBy | undefined
        after = first?.after ?? null
        startedAt = run.start?.ts ?? 0
        if (window && first?.through !== undefined && first.through !== window.through) return { runIds, startedAt, endsAt: first.through }
      }
    }
    const isNew = await history.record({
      type: 'trigger.fired',
      trigger: { id: trigger.id, depth },
      data: {
        cause: cause.id, kind: cause.kind, runIds, flows: trigger.start,
        ...window ? { events: cause.events!.length, ...window } : {},
      },
    }, after)
    if (isNew) counters.fired += 1
    const fired = { runIds, startedAt }
    bounded(this.done, cause.id, fired)
    return fired
  }

  /** Ends a chain. */
  private async stop(cause: TriggerCause, depth: number): Promise<Fired> {
    const { history, starts, trigger } = this
    const from = Math.max(0, cause.at - CLOCK_TOLERANCE_MS)
    const isNew = await history.record({
      type: 'trigger.depth', trigger: { id: trigger.id, depth }, data: { cause: cause.id, kind: cause.kind, depth, limit: MAX_DEPTH, flows: trigger.start },
    }, `${from}-0`)
    if (isNew) starts.parts.counters.depth += 1
    const fired = { runIds: [], startedAt: 0 }
    bounded(this.done, cause.id, fired)
    return fired
  }
}

function bounded<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value)
  if (map.size > MAX_REMEMBERED) map.delete(map.keys().next().value!)
}
