import type { EventBus } from './bus'
import type { EventRecord } from './events'
import type { QueueAdapter } from './queue'
import type { StoreAdapter } from './store'
import type { StreamAdapter } from './stream'
import type { Wiring } from './wiring'

// ───────────────────────────── webhooks ─────────────────────────────

/** An event becomes a signed POST, as Standard Webhooks has it: `webhook-id`, `webhook-timestamp`, `webhook-signature`. */
export interface WebhookDefinition {
  /** Unique in the registry: letters, digits, `-` and `_`, at most 100. It is the name of a durable consumer, `webhook:<name>`. */
  name: string
  /** Globs of types of persisted events. */
  types: string | string[]
  /** Names of flows that the event must be of. Absent: any, or none. */
  flow?: string | string[]
  /** Equality per field of the event, dotted paths too; an array means "one of". */
  filter?: Record<string, any>
  /** `http:` or `https:`, without user and password. A function that throws makes the attempt fail. */
  url: string | ((event: EventRecord) => string)
  /** `whsec_` and base64, or base64; several while one is rotated. Absent: requests are not signed. */
  secret?: string | string[]
  /** Further headers. Those of the connection and `webhook-…` are refused. */
  headers?: Record<string, string>
  /** Returns the body; a string is sent as it is, anything else as JSON. Absent: `{ type, timestamp, data: event }`. */
  body?: (event: EventRecord) => any
  /** From resolving the name to the status, in ms: 1 to 300,000. Default 15,000. */
  timeout?: number
  /**
   * Attempts before a delivery is parked, 1 to 100. Default 8: immediately, then after 5 s, 30 s, 2 min, 10 min, 1 h, 6 h and 24 h,
   * with up to a tenth more by chance. `Retry-After` of a 429 or 503 is honoured up to 24 h. A 410 disables the webhook.
   */
  attempts?: number
  /** Loopback, private, link-local, metadata and reserved addresses are refused after DNS resolution. Redirects are never followed. Default false. */
  allowPrivate?: boolean
}

/** Options of {@link createWebhookWiring}. */
export interface WebhookWiringOptions {
  /** Not needed: webhooks follow the store's feed. */
  bus?: EventBus
  /** Where `webhook:{flowName}` is published. Absent: the current stream, if there is one. */
  stream?: StreamAdapter
  /** Where the events and the states of deliveries are. Absent: the current store. */
  store?: StoreAdapter
  /** What runs the attempts. Absent: the current queue. */
  queue?: QueueAdapter
  /** The webhooks, or a function that gives them, called at each start. */
  webhooks: WebhookDefinition[] | (() => WebhookDefinition[])
}

/** Where a delivery is: under way, answered with 2xx, or parked after its last attempt. */
export type WebhookDeliveryState = 'pending' | 'delivered' | 'failed'

/** A delivery, as {@link WebhookWiring.deliveries} returns it. */
export interface WebhookDelivery {
  /** `<webhook>:<event id>:<hash of the subject>`: event ids are unique in their subject only. Each attempt has it as its `webhook-id`. */
  id: string
  /** The type of the event. */
  event: string
  /** The subject of the event. */
  subject: string
  /** The id of the event. */
  eventId: string
  /** Where it is. */
  state: WebhookDeliveryState
  /** Attempts that are over; `redeliver` begins again. */
  attempts: number
  /** The status of the last answer. */
  status?: number
  /** Why the last attempt failed. */
  error?: string
  /** When it came to its state, or its last attempt ended: Unix time in milliseconds. */
  at: number
}

/** Counters of this instance since the wiring was created. */
export interface WebhookStats {
  /** Webhooks that are running. */
  webhooks: number
  /** Events that became deliveries. */
  taken: number
  /** Events that came while their webhook was disabled. */
  skipped: number
  /** Attempts. */
  attempts: number
  /** Deliveries answered with 2xx. */
  delivered: number
  /** Attempts that failed. */
  failed: number
  /** Deliveries that were parked. */
  parked: number
  /** Requests under way. */
  running: number
}

/** Webhooks, as `createWebhookWiring` returns them. */
export interface WebhookWiring extends Wiring {
  /** Stops it. */
  [Symbol.asyncDispose](): Promise<void>
  /** Returns the deliveries of a webhook, newest first: at most `limit`, default 100. The newest 10,000 are kept, and all that are pending. */
  deliveries(name: string, opts?: { state?: WebhookDeliveryState, limit?: number }): Promise<WebhookDelivery[]>
  /**
   * Delivers once more what was delivered or parked, with all attempts. Resolves when that is stored; a pending delivery stays as it
   * is. Rejects with NVENT_NOT_FOUND where there is none, NVENT_INVALID where its webhook is disabled.
   */
  redeliver(id: string): Promise<void>
  /** Sends one event of the type `webhook.test`, once, and resolves with whatever status came. Rejects where none did. */
  test(name: string): Promise<{ status: number, ms: number }>
  /** Delivers what is stored from now on. Holds in the store: also after a restart, and for other instances. */
  enable(name: string): Promise<void>
  /** Lets events pass without delivery; what is pending is parked. Holds in the store, as a 410 does. */
  disable(name: string): Promise<void>
  /** Returns whether a webhook delivers. */
  isEnabled(name: string): Promise<boolean>
  /** Returns its counters. */
  stats(): WebhookStats
}
