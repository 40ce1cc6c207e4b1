import { createHash } from 'node:crypto'
import type { EventRecord, IndexEntry, StoreAdapter, WebhookDelivery, WebhookDeliveryState } from '../types'

/** Deliveries of a webhook that are kept beside those that are pending. */
const MAX_KEPT = 10_000
/** How many are added before old ones are removed. */
const PRUNE_INTERVAL = 200
const PAGE = 500

/** What the store knows of a delivery. Neither the event nor a secret is in it. */
export interface Delivery {
  id: string
  state: WebhookDeliveryState
  /** The type of the event. */
  event: string
  subject: string
  eventId: string
  /** Attempts of this round that are over. */
  attempts: number
  /** How often `redeliver` began again. */
  round: number
  status?: number
  error?: string
  /** Unix time in ms. */
  at: number
  /** When the next attempt is due: Unix time in ms. */
  dueAt: number
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 16)

/** Returns the id of a delivery. Ids of events are unique in their subject only. */
export const deliveryId = (webhook: string, subject: string, eventId: string): string => `${webhook}:${eventId}:${hash(subject)}`

/** Returns the name of the webhook of a delivery. */
export const webhookOf = (id: string): string => id.slice(0, Math.max(id.indexOf(':'), 0))

/** Returns the greatest event id that is less than this one. */
function idBefore(id: string): string {
  const [ms, seq = '0'] = id.split('-') as [string, string?]
  return seq === '0' ? `${BigInt(ms) - 1n}-9223372036854775807` : `${ms}-${BigInt(seq) - 1n}`
}

/** The deliveries of a webhook, as an index of the store: what a job is to do follows from it, whatever became of the job. */
export class Deliveries {
  private readonly key: string
  private added = 0

  constructor(private readonly store: StoreAdapter, webhook: string) {
    this.key = `nq:webhook:${webhook}`
  }

  async get(id: string): Promise<Delivery | undefined> {
    const entry = await this.store.index.get(this.key, id)
    return entry ? deliveryOf(entry) : undefined
  }

  /** Returns the event of a delivery. Undefined: it was deleted, or is no longer kept. */
  async event({ subject, eventId }: Delivery): Promise<EventRecord | undefined> {
    const [event] = await this.store.stream.read(subject, { after: idBefore(eventId), limit: 1 })
    return event?.id === eventId ? event : undefined
  }

  async add({ id, ...fields }: Delivery): Promise<void> {
    await this.store.index.add(this.key, id, fields.at, fields)
    if (this.added++ % PRUNE_INTERVAL === 0) await this.prune()
  }

  /** Stores fields; null removes one. */
  async update(id: string, fields: { [K in keyof Delivery]?: Delivery[K] | null }): Promise<void> {
    await this.store.index.update(this.key, id, fields)
  }

  async list(state: WebhookDeliveryState | undefined, limit: number, offset = 0): Promise<Delivery[]> {
    const entries = await this.store.index.read(this.key, { limit, offset, ...state === undefined ? {} : { filter: { state } } })
    return entries.map(deliveryOf)
  }

  /** Returns every delivery that is pending, the oldest first. */
  async pending(): Promise<Delivery[]> {
    const pending: Delivery[] = []
    for (;;) {
      const page = await this.list('pending', PAGE, pending.length)
      pending.push(...page)
      if (page.length < PAGE) break
    }
    return pending.reverse()
  }

  private async prune(): Promise<void> {
    const old = await this.store.index.read(this.key, { offset: MAX_KEPT, limit: PAGE, filter: { state: ['delivered', 'failed'] } })
    await Promise.all(old.map(({ id }) => this.store.index.delete(this.key, id)))
  }
}

function deliveryOf({ id, metadata }: IndexEntry): Delivery {
  return { ...metadata as Omit<Delivery, 'id'>, id }
}

/** Returns what a caller sees of a delivery. */
export function listed({ id, event, subject, eventId, state, attempts, status, error, at }: Delivery): WebhookDelivery {
  return { id, event, subject, eventId, state, attempts, ...status === undefined ? {} : { status }, ...error === undefined ? {} : { error }, at }
}
