import type { EventBus } from './bus'
import type { FlowWiringOptions } from './flow'
import type { QueueAdapter } from './queue'
import type { StoreAdapter } from './store'
import type { StreamAdapter } from './stream'
import type { TriggerDefinition, TriggerWiring } from './trigger'
import type { WebhookDefinition, WebhookWiring } from './webhook'

/** A part that connects adapters while it runs. Your own can be given to the registry. */
export interface Wiring {
  /** Starts it. Idempotent in the wirings of this package. */
  start(): void | Promise<void>
  /** Stops it. What is under way is drained within a deadline (5 s in the wirings of this package). */
  stop(): void | Promise<void>
}

/** A channel: which persisted events go to which topic. */
export interface ChannelDefinition {
  /** Names the channel in `stats().routed`. */
  name: string
  /** Event types that it takes; `'*'` is every type. */
  types: string[]
  /** `{field}` takes a field of the event, `{subject}` the subject. An event without the field is not routed, and counted in `stats().skipped`. */
  topic: string
  /** Type of the message. Absent: the event's own. The data is `{ event }`. */
  type?: string
}

/** Options of the stream coordinator. */
export interface StreamCoordinatorOptions {
  /** `store-sync:append:{subject}`, type `store.append`, data `{ subject, event }`. Default true. */
  enableStoreSync?: boolean
  /**
   * `flow:event:{runId}`, type as the event, data `{ runId, flowName, event }`; and for terminal events and emits
   * `flow:trigger:{flowName}`, type `flow.trigger`, data `{ flowName, runId, cause, event }`. Default true.
   */
  enableFlowEvents?: boolean
  /**
   * `client:flow:{runId}`, type `flow.event`, data `{ event }`; and when a run's status changes
   * `client:ui:flow:{flowName}`, type `ui.flow`, data `{ flowName, runId, status, ts }`. Default false.
   */
  enableClientMessages?: boolean
  /** More channels, as rows of the same table. */
  channels?: ChannelDefinition[]
  /** Types that go to the flow channel. Default: flow.start, flow.completed, flow.failed, flow.cancel, flow.stalled, emit. */
  flowEventTypes?: string[]
  /** Names this instance: `metadata.instanceId` of the messages about events that it appended. Default: one per process. */
  instanceId?: string
  /**
   * `at-least-once` follows the feed of a file or Redis store: after a crash, or an outage of the stream, it goes on after its
   * cursor, and no message is lost. A message may be published twice; `metadata.eventId` and `metadata.position` show that.
   * Events of other stores, and those that are only on the bus, are not routed.
   * `at-most-once` follows the bus: what waits when the process ends, or exceeds the limits, is lost.
   * On a Redis store several instances may run. Where the stream is a Redis stream (or {@link StreamAdapter.shared}) one of
   * them publishes for all; when it is gone another one takes over within 15 s. Elsewhere each publishes every event to its own.
   * Default: `at-least-once` where the store is a file or Redis store that announces on the coordinator's bus.
   */
  delivery?: 'at-least-once' | 'at-most-once'
  /**
   * Name of the cursor in the store, for which one coordinator at a time publishes. Coordinators with different channels need
   * different names. Where each instance publishes to a stream of its own, a number is added. Default `stream-coordinator`.
   */
  consumer?: string
}

/** The coordinator's options, and what it connects. */
export interface StreamCoordinatorParts extends StreamCoordinatorOptions {
  /** Where events come from. Absent: `getEventBus()`. Native, or any object with the same methods. */
  bus?: EventBus
  /** Where messages go. Absent: the current stream. Native, or any object with the same methods. */
  stream?: StreamAdapter
  /** Whose feed `delivery: 'at-least-once'` follows. Absent: the current store. */
  store?: StoreAdapter
}

/** Counters of the stream coordinator. */
export interface CoordinatorStats {
  /** Messages that the stream took, for each channel: `store-sync`, `flow`, `client`, and the names of your own. */
  routed: Record<string, number>
  /** Times that a channel took an event but a field of its topic was missing. */
  skipped: number
  /** Messages that the stream did not take. */
  failed: number
  /** Events that wait or are under way. Bounded. */
  lag: number
  /** Further counters. */
  [counter: string]: any
}

/** A coordinator, as `createStreamCoordinator` returns it. */
export interface StreamCoordinator extends Wiring {
  /** Stops it. */
  [Symbol.asyncDispose](): Promise<void>
  /** Returns its counters. */
  stats(): CoordinatorStats
}

/** Options of the registry. */
export interface WiringRegistryOptions {
  /** Options of its coordinator. */
  streamCoordinator?: StreamCoordinatorOptions
  /** Flows for its flow wiring. false: without it (nvent's own does it). */
  flow?: false | Pick<FlowWiringOptions, 'flows' | 'subjects'> & {
    /** How long the state of a run is kept after its end, in ms. Default 7 days. */
    keepState?: number
  }
  /** Absent: what `createAdapters` or `setAdapters` made current. */
  store?: StoreAdapter
  /** Absent: what `createAdapters` or `setAdapters` made current. */
  stream?: StreamAdapter
  /** Absent: what `createAdapters` or `setAdapters` made current. */
  queue?: QueueAdapter
  /** Absent: `getEventBus()`. */
  bus?: EventBus
  /** More wirings: started after the built-in ones, stopped before them. */
  wirings?: Wiring[]
  /** What starts the flows, or a function that gives it, called at each start. They start last and stop first. */
  triggers?: TriggerDefinition[] | (() => TriggerDefinition[])
  /** What events are sent to, or a function that gives it, called at each start. They start after the flows and stop before them. */
  webhooks?: WebhookDefinition[] | (() => WebhookDefinition[])
}

/** The registry, as `createWiringRegistry` returns it. */
export interface WiringRegistry extends Wiring {
  /** Stops it. */
  [Symbol.asyncDispose](): Promise<void>
  /** Returns the counters of its wirings. */
  stats(): any
  /** Its triggers, where it has the option. */
  readonly triggers?: TriggerWiring
  /** Its webhooks, where it has the option. */
  readonly webhooks?: WebhookWiring
}
