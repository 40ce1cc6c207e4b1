import type { EventBus } from './bus'
import type { EventRecord } from './events'
import type { ParkedConsumerEvent } from './feed'
import type { FlowDefinition } from './flow'
import type { QueueAdapter } from './queue'
import type { StoreAdapter } from './store'
import type { StreamAdapter } from './stream'
import type { Wiring } from './wiring'

// ───────────────────────────── triggers ─────────────────────────────

/** How a trigger is fired. */
export type TriggerKind = 'event' | 'schedule' | 'webhook' | 'manual'

/** What starts flows. */
export interface TriggerDefinition {
  /** Unique in the registry; at most 200 characters. Also the last part of a webhook's path. */
  id: string
  /** What fires it. `fire` can fire a trigger of any kind. */
  on:
    | {
      /** Globs of types of persisted events, such as `flow.completed`. The history of triggers only matches globs that begin with `trigger.`. */
      event: string | string[]
      /** Names of flows that the event must be of. Absent: any, or none. */
      flow?: string | string[]
      /** Equality per field of the event, dotted paths too; an array means "one of". */
      filter?: Record<string, any>
    }
    | {
      /** Cron: five fields, or six with seconds first. */
      schedule: string
      /** An IANA name. Absent: the system's. */
      timezone?: string
    }
    | {
      /** Signed requests, see {@link handleWebhook}. Several secrets while one is rotated: `whsec_` and base64, or base64. */
      webhook: { secret: string | string[] }
    }
    | {
      /** Only `fire`. */
      manual: true
    }
  /** Flows to start, by id. */
  start: string | string[]
  /** Returns the input of the runs. Absent: `cause.data`. One that throws is tried again as a consumer's handler is, then the cause is parked. */
  input?: (cause: TriggerCause) => any
  /**
   * Causes of one key start one run together. A window ends `wait` ms after its last cause, at most `maxWait` ms after its first,
   * and with 10,000 causes. For triggers by events and webhooks; `fire` does not wait.
   */
  debounce?: {
    /** Returns the key of a cause. Absent: one for all. */
    key?: (cause: TriggerCause) => string
    /** ms */
    wait: number
    /** ms. Absent: no limit. */
    maxWait?: number
  }
  /** Whether it fires before `enable` or `disable` was ever called for its id. Default true. */
  enabled?: boolean
}

/** Why a trigger fires. */
export interface TriggerCause {
  /** Unique in the trigger: of an event its subject and id, of a schedule the due time, of a webhook its `webhook-id`. */
  id: string
  /** The trigger's id. */
  trigger: string
  /** What fired it: 'manual' for `fire`, whatever the trigger is. */
  kind: TriggerKind
  /** Data of the event, body of the webhook, or what `fire` was given; of a schedule `{ dueAt }`, in ms. Debounced: that of the last cause. */
  data: any
  /** The event. Debounced: the last one. */
  event?: EventRecord
  /** Debounced: the events of the window, oldest first. Of a webhook: the stored requests, with the body as data. */
  events?: EventRecord[]
  /** When it happened: Unix time in milliseconds. Of a schedule the due time. */
  at: number
}

/** Options of {@link createTriggerWiring}. */
export interface TriggerWiringOptions {
  /** Not needed: triggers follow the store's feed. */
  bus?: EventBus
  /** Not needed: triggers follow the store's feed. */
  stream?: StreamAdapter
  /** Where causes, runs and history are. Absent: the current store. */
  store?: StoreAdapter
  /** Where the entry steps are enqueued. Absent: the current queue. */
  queue?: QueueAdapter
  /** The flows that can be started. Absent: those of running registries. */
  flows?: FlowDefinition[] | (() => FlowDefinition[])
  /** The triggers, or a function that gives them, called at each start. */
  triggers: TriggerDefinition[] | (() => TriggerDefinition[])
}

/** A trigger, as {@link TriggerWiring.list} returns it. */
export interface ListedTrigger {
  /** Its id. */
  id: string
  /** Its kind. */
  kind: TriggerKind
  /** Whether it fires. */
  enabled: boolean
  /** How often it has fired, on all instances. */
  fired: number
  /** Unix time in milliseconds. */
  lastFiredAt?: number
  /** When a schedule is due next: Unix time in milliseconds. */
  nextRunAt?: number
  /** Causes that have failed too often. */
  parked: number
}

/** Counters of this instance since its last start. */
export interface TriggerStats {
  /** Triggers that are running. */
  triggers: number
  /** Firings recorded. */
  fired: number
  /** Runs started. */
  started: number
  /** Attempts to fire that failed. */
  failed: number
  /** Causes stopped because their chain was too long. */
  depth: number
  /** Causes that wait in debounce windows here. */
  waiting: number
  /** Parked causes. */
  parked: number
}

/** Triggers, as `createTriggerWiring` returns them. */
export interface TriggerWiring extends Wiring {
  /** Stops it. */
  [Symbol.asyncDispose](): Promise<void>
  /**
   * Fires a trigger of any kind at once. Resolves when its runs are started. The same `idempotencyKey` starts nothing again and
   * resolves with the same ids and `created: false`. Rejects with NVENT_NOT_FOUND where there is no such trigger, NVENT_INVALID
   * where it is disabled, and with what its `input` throws.
   */
  fire(id: string, data?: any, opts?: { idempotencyKey?: string }): Promise<{ runIds: string[], created: boolean }>
  /** Returns all triggers, in the order of their definition. */
  list(): Promise<ListedTrigger[]>
  /** Fires on what is stored from now on. Holds in the store: also after a restart, and for other instances. */
  enable(id: string): Promise<void>
  /** Lets causes pass without firing. Holds in the store: also after a restart, and for other instances. */
  disable(id: string): Promise<void>
  /** Returns the causes that have failed too often, in the order of the feed. `limit`: default 100. */
  parked(id: string, opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]>
  /** Tries parked causes again: these, or all. Resolves with their number. */
  replay(id: string, positions?: string[]): Promise<number>
  /** Returns its counters. */
  stats(): TriggerStats
}
