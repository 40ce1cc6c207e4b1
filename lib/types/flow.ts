import type { EventBus } from './bus'
import type { EventData } from './events'
import type { QueueAdapter } from './queue'
import type { StoreAdapter } from './store'
import type { StreamAdapter } from './stream'
import type { Wiring } from './wiring'

/** A flow: its steps, and what each waits for. */
export interface FlowDefinition {
  /** The flow's name. */
  id: string
  /** The step that starts a run. The caller that starts the run enqueues it. */
  entry?: {
    /** Its name. */
    step: string
    /** The queue it runs on. Default: its name. */
    queue?: string
    /** Names that it emits. */
    emits?: string[]
  }
  /** The other steps, by name. */
  steps: Record<string, {
    /** Emitted names, or `step:<name>` for a step's completion. The step runs once all have happened. */
    subscribes?: string[]
    /** Names that it emits. */
    emits?: string[]
    /** The queue it runs on. Default: its name. */
    queue?: string
  }>
}

/** What a step of a flow from `defineFlow` is given beside its input. */
export interface StepContext {
  /** The run's id. */
  readonly runId: string
  /** The flow's id. */
  readonly flowId: string
  /** The step's name. */
  readonly step: string
  /** From 1; counts over retries of the run as well. */
  readonly attempt: number
  /** Aborted when the attempt times out, the run is cancelled, or the queue closes. */
  readonly signal: AbortSignal
  /** Resolves when the event is stored. Steps that subscribe to the name run with the payload. */
  emit<const Name extends string>(name: Name, payload?: EventData<Name>): Promise<void>
  /** Values of the run, stored under `nq:flow:{runId}:{key}`; removed `keepState` ms after its end. */
  readonly state: {
    /** Resolves with the value, or null. */
    get<T = any>(key: string): Promise<T | null>
    /** Stores a value. */
    set(key: string, value: any): Promise<void>
    /** Removes a value. */
    delete(key: string): Promise<void>
  }
  /** Stores an event of type `log` with `{ level, message, data }` in the run. */
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, data?: any): Promise<void>
}

/** A step of a flow from `defineFlow`. */
export interface StepOptions<Input = any> {
  /** Emitted names, or `step:<name>` for a step's completion. The step runs once all have happened. Absent: the entry. */
  subscribes?: string[]
  /** Names that it emits. */
  emits?: string[]
  /** The queue it runs on. Default: one of its own, `<flow>.<step>`. */
  queue?: string
  /** How often the step is tried in all. Default 1. */
  attempts?: number
  /** Pause before another attempt, in ms. */
  backoff?: number | { type: 'fixed' | 'exponential', delay: number }
  /** Time for one attempt, in ms. Default: none. */
  timeout?: number
  /** Runs of the step at a time in this process. Default 1. */
  concurrency?: number
  /**
   * Does the step's work. The entry is given the run's input, the others `{ [name]: payload }` of what they subscribe to.
   * What it returns is stored as `result` of `step.completed`. It may run again after a crash: it should be idempotent.
   */
  run: (input: Input, step: StepContext) => unknown
}

/** A flow with the functions of its steps, as `defineFlow` returns it. */
export interface Flow<Input = any> extends FlowDefinition {
  /** The steps as they were given. */
  readonly handlers: Record<string, StepOptions>
  /** Carries the type of the input; has no value. */
  readonly __input?: Input
}

/** How a run ended. */
export interface RunEnd {
  /** Its status. */
  status: 'completed' | 'failed' | 'canceled'
  /** What failed, or the reason of the cancellation. */
  error?: string
}

/** A run, as `startFlow` returns it. */
export interface FlowRun {
  /** Its id. */
  runId: string
  /** false where the run was there already. */
  created: boolean
  /**
   * Resolves with the run's end, from the log, in any instance. Keeps the process alive meanwhile. Rejects with
   * NVENT_UNAVAILABLE after `timeout` ms, and with the signal's reason.
   */
  result(opts?: { signal?: AbortSignal, timeout?: number }): Promise<RunEnd>
}

/** A flow of a running registry, as `listFlows` returns it. */
export interface ListedFlow {
  /** Its name. */
  id: string
  /** Key of the index of its runs. */
  runIndex: string
  /** Subject of its runs, with a place for `{runId}`. */
  runSubject: string
  /** Its steps, the entry first. */
  steps: Array<{ name: string, queue: string, subscribes: string[], emits: string[] }>
}

/** Options of `runState`. */
export interface RunStateOptions {
  /** Absent: the current store. */
  store?: StoreAdapter
  /** Subject of the run. Absent: as the running registry has it. */
  subject?: string
  /** The id of the last event that counts. Absent: the whole log. An id that the log has not: nothing has happened yet. */
  until?: string
}

/** What a step of a run does, or waits for. */
export interface StepSnapshot {
  /** Steps that have not begun are known from the definition of a running registry only. */
  state: 'waiting' | 'enqueued' | 'active' | 'completed' | 'failed'
  /** Subscriptions of a waiting step that have not happened. */
  unmet?: string[]
  /** Why it failed. */
  error?: string | null
}

/** The state of a run after an event of its log: what flow wiring decides by. */
export interface RunSnapshot {
  status: 'running' | 'completed' | 'failed' | 'canceled'
  flowName?: string
  /** Unix time in ms, as the two below. */
  startedAt?: number
  lastActivityAt?: number
  completedAt?: number
  error?: string
  stepCount: number
  completedSteps: number
  steps: Record<string, StepSnapshot>
  /** The first emit of each name. */
  emits: Record<string, { ts: number, payload: any }>
  /** How often the run was retried. */
  retries: number
  input?: any
}

/** Options of `streamRun`. */
export interface RunStreamOptions {
  /** Absent: the current store. */
  store?: StoreAdapter
  /** Not needed: the store's log is followed. */
  stream?: StreamAdapter
  /** Subject of the run. Absent: as the running registry has it, else `nq:flow:{runId}`. */
  subject?: string
}

/** Where runs and their index are kept. `{runId}` and `{flowName}` are filled in. */
export interface FlowSubjects {
  /** Subject of a run's events. Default `nq:flow:{runId}`. */
  run?: string
  /** Key of the index of a flow's runs. Default `nq:flows:{flowName}`. */
  runIndex?: string
}

/** Options of flow wiring. */
export interface FlowWiringOptions {
  /** Where events come from. Absent: `getEventBus()`. */
  bus?: EventBus
  /** Where runs are kept. Absent: the current store. */
  store?: StoreAdapter
  /** Where steps are enqueued. Absent: the current queue. */
  queue?: QueueAdapter
  /** The flows, or a function that gives them. */
  flows?: FlowDefinition[] | (() => FlowDefinition[])
  /** Where runs and their index are kept. */
  subjects?: FlowSubjects
}

/** Counters of flow wiring. */
export interface FlowStats {
  /** Ingress events persisted. */
  persisted: number
  /** Steps enqueued. */
  triggered: number
  /** Runs ended as completed. */
  completed: number
  /** Runs ended as failed. */
  failed: number
  /** Further attempts to do something. */
  retries: number
  /** Ingress events that wait to be persisted. */
  lag: number
  /** Ingress events that were dropped after the last attempt. */
  lost: number
  /** Other permanent failures: a step that the queue refused, an index entry that was not written, a log that was not read. */
  errors: number
  /** Steps run once more because a crash had lost the events of their handler. */
  recovered: number
}

/** Flow wiring, as `createFlowWiring` returns it. */
export interface FlowWiring extends Wiring {
  /** Stops it. */
  [Symbol.asyncDispose](): Promise<void>
  /** Returns its counters. */
  stats(): FlowStats
}
