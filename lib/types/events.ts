/**
 * The types of an application's events and what their `data` is:
 *
 * ```ts
 * declare module 'nvent-native' {
 *   interface NventEvents { 'order.paid': { amount: number } }
 * }
 * ```
 *
 * The data of a type that is not listed is `any`.
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- it is there to be augmented
export interface NventEvents {}

/** The `data` of events of a type: as {@link NventEvents} has it, or `any`. */
export type EventData<Type extends string = string> = Type extends keyof NventEvents ? NventEvents[Type] : any

/** `data`, which is there where the type is one of {@link NventEvents}. */
export type WithData<Type extends string> = Type extends keyof NventEvents
  ? {
    /** The payload. */
      data: NventEvents[Type]
    }
  : {
    /** The payload: any JSON value. */
      data?: any
    }

/** Fields of an event that flows and channels read. Further fields are kept as they came. */
export interface EventFields<Type extends string = string> {
  /** What happened: `flow.start`, `step.completed`, `emit`, or a type of your own. */
  type: Type
  /** The run of a flow that the event belongs to. */
  runId?: string
  /** The name of that flow. */
  flowName?: string
  /** The step that the event is about. */
  stepName?: string
  /** One attempt of a step: `<run>__<step>__attempt-<n>`. */
  stepId?: string
  /** Which attempt of the step, counted from 1. */
  attempt?: number
  /** W3C trace context of its append, where the application traces. The spans of what the event leads to continue it. */
  traceparent?: string
  /** Any further field, kept as it came. */
  [field: string]: any
}

/** What a store adds to an event. */
export interface StoredFields {
  /** `<ms>-<seq>`: strictly increasing within a subject on every backend, also across restarts and clock steps. */
  id: string
  /** When the store took it: Unix time in milliseconds. */
  ts: number
}

/** A persisted event. `id` and `ts` are given by the store. Unknown extra fields are kept as they came. */
export type EventRecord<Type extends string = string> = StoredFields & EventFields<Type> & WithData<Type>

/** An event to append: an `id` or `ts` in it is replaced by the store's own. */
export type NewEvent<Type extends string = string> = EventFields<Type> & WithData<Type>

/** An event on a bus: with `id` and `ts` once it is stored, without them before. */
export type BusEvent<Type extends string = string> = Partial<StoredFields> & EventFields<Type> & WithData<Type>

/** Options of reading a subject. All given filters must hold. */
export interface EventReadOptions {
  /** Only events of these types. Absent: every type. */
  types?: string[]
  /** Only events after this id, itself excluded. An id that is not in the subject is a valid position too. */
  after?: string
  /** Only events before this id, itself excluded. */
  before?: string
  /** Only events from this time on, in milliseconds, itself included. 0 is a time, not "unset". */
  from?: number
  /** Only events up to this time, in milliseconds, itself included. */
  to?: number
  /** At most so many events, counted after every filter. Absent: all. */
  limit?: number
  /** `asc` (default): in order of append. `desc`: the newest first. */
  order?: 'asc' | 'desc'
}

/** Options of an append. */
export interface AppendOptions {
  /** The id that the subject must end with, or null for "must be empty". Rejects with NVENT_CONFLICT where it does not. */
  expectedLastId?: string | null
}

/** Options of a loop over the events of a subject. */
export interface EventIterateOptions {
  /** Only events after this id. Absent: those that are appended from now on. `'0-0'`: all. */
  after?: string
  /** Only events of these types. Absent: every type. */
  types?: string[]
  /** Ends the loop with an `AbortError` when it is aborted. */
  signal?: AbortSignal
}

/** A handler that is called with what is appended to a subject. */
export interface EventSubscription {
  /** Names the subscription within its adapter. */
  id: string
  /** The subject, or the glob, that was subscribed to. */
  subject: string
  /** Ends it. After it resolves the handler is not called again. Needs no `this`; calling it twice is fine. */
  unsubscribe: () => Promise<void>
  /** Calls {@link EventSubscription.unsubscribe}. */
  [Symbol.asyncDispose]: () => Promise<void>
}
