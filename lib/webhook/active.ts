import { messageOf } from '../errors'
import { whileRetryable } from '../flow/retry'
import type { Consumer, ConsumerContext, EventRecord, QueueAdapter, StoreAdapter, StreamAdapter, WebhookStats } from '../types'
import { warnLimited, warnOnce } from '../warn'
import type { Webhook } from './definition'
import { Deliveries, deliveryId } from './deliveries'
import type { Delivery } from './deliveries'
import { delayAfter, retryAfterOf, sweepInterval } from './schedule'
import { errorText, refusalOf, send } from './send'

/** Requests of a webhook at a time: a slow receiver takes no more. */
const CONCURRENCY = 10
/** Subjects whose events become deliveries at a time. */
const TAKE_CONCURRENCY = 16
/** Of what fails because the store or the queue does: attempts of deliveries are counted in the store. */
const UNLIMITED = 1_000_000
const OUTAGE_BACKOFF = { type: 'fixed', delay: 5_000 } as const
/** How often is looked whether this process has become the one that works for the webhook. */
const LEASE_INTERVAL_MS = 500
const JOB = 'deliver'

/** What the webhooks of a wiring share. */
export interface Parts {
  store: StoreAdapter
  queue: QueueAdapter
  stream: StreamAdapter | undefined
  counters: Omit<WebhookStats, 'webhooks' | 'running'>
  failed: (error: unknown) => void
}

interface DeliveryJob { id: string, round: number, attempt: number }

/**
 * A webhook at work. Its durable consumer turns events into deliveries, entries of an index, and enqueues a job for the first
 * attempt of each. The job of an attempt stores its outcome in the entry, then enqueues the next one, whose id follows from
 * delivery and attempt: whatever is repeated after a crash finds that id taken, and what is missing follows from the entry.
 */
export class ActiveWebhook {
  readonly deliveries: Deliveries
  private consumer: Consumer | undefined
  private readonly queueName: string
  private readonly switchKey: string
  private readonly requests = new Set<Promise<unknown>>()
  private leaseTimer: NodeJS.Timeout | undefined
  /** When what is pending was last looked through by this process, while it worked for the webhook; NaN: not yet. */
  private reconciledAt = Number.NaN
  private disabling: Promise<void> | undefined
  private readonly stopping = new AbortController()

  constructor(readonly webhook: Webhook, private readonly parts: Parts) {
    this.deliveries = new Deliveries(parts.store, webhook.name)
    // BullMQ takes no colons.
    this.queueName = `nvent-webhook-${webhook.name}`
    this.switchKey = `nq:webhook-state:${webhook.name}`
  }

  get running(): number {
    return this.requests.size
  }

  async start(): Promise<void> {
    const { store, queue } = this.parts
    queue.registerWorker(this.queueName, JOB, job => this.track(this.attempt(job.data)), { concurrency: CONCURRENCY })
    queue.startProcessingQueue?.(this.queueName)
    this.consumer = await store.consume(`webhook:${this.webhook.name}`, (event, context) => this.take(event, context), {
      types: this.webhook.types, concurrency: TAKE_CONCURRENCY, attempts: UNLIMITED,
    })
    await this.reconcile()
    this.leaseTimer = setInterval(() => void this.reconcile().catch(this.parts.failed), LEASE_INTERVAL_MS).unref()
  }

  /** Resolves when what is under way has ended. */
  async stop(): Promise<void> {
    clearInterval(this.leaseTimer)
    await this.consumer?.stop()
    this.stopping.abort(new Error('the webhooks were stopped'))
    await Promise.allSettled(this.requests)
  }

  async isEnabled(): Promise<boolean> {
    return await this.parts.store.kv.get(this.switchKey) === null
  }

  async enable(): Promise<void> {
    await this.parts.store.kv.delete(this.switchKey)
  }

  async disable(reason: string): Promise<void> {
    await this.parts.store.kv.set(this.switchKey, { enabled: false, reason, at: Date.now() })
  }

  /** Disables the webhook because its receiver is gone. Warns once, however many requests were under way. */
  private disableGone(): Promise<void> {
    this.disabling ??= (async () => {
      if (!await this.isEnabled()) return
      await this.disable('410')
      warnLimited('NVENT_WEBHOOK', `the receiver of the webhook ${JSON.stringify(this.webhook.name)} answered 410: it is disabled until enable() is called`)
    })().finally(() => this.disabling = undefined)
    return this.disabling
  }

  /** Begins a delivery again. */
  async redeliver({ id, round }: Delivery): Promise<void> {
    const again = { state: 'pending', attempts: 0, round: round + 1, at: Date.now(), dueAt: 0 } as const
    await this.deliveries.update(id, { ...again, status: null, error: null })
    await this.enqueue({ id, ...again })
  }

  private track<T>(work: Promise<T>): Promise<T> {
    this.requests.add(work)
    return work.finally(() => this.requests.delete(work))
  }

  /** Makes a delivery of an event of the feed. */
  private async take(event: EventRecord, { subject, signal }: ConsumerContext): Promise<void> {
    const { webhook, parts: { counters } } = this
    // What was trimmed before it was read has no subject.
    if (subject === '' || !webhook.matches(event)) return
    await whileRetryable(async () => {
      if (!await this.isEnabled()) {
        counters.skipped += 1
        return
      }
      const id = deliveryId(webhook.name, subject, event.id)
      const known = await this.deliveries.get(id)
      if (known && known.state !== 'pending') return
      const delivery: Delivery = known ?? { id, state: 'pending', event: event.type, subject, eventId: event.id, attempts: 0, round: 0, at: Date.now(), dueAt: 0 }
      if (!known) await this.deliveries.add(delivery)
      await this.enqueue(delivery)
      counters.taken += 1
    }, signal)
    this.announce(event)
  }

  /** Publishes `webhook.trigger`. A stream that is down delays no delivery. */
  private announce(event: EventRecord): void {
    if (!this.parts.stream || typeof event.flowName !== 'string') return
    const published = Promise.resolve(this.parts.stream.publish(`webhook:${event.flowName}`, { type: 'webhook.trigger', data: { event } }))
    published.catch((error: unknown) => warnOnce('NVENT_UNAVAILABLE', `webhook.trigger was not published: ${messageOf(error)}`))
  }

  /** Enqueues the next attempt of a delivery. Does nothing where its job is there. */
  private async enqueue({ id, round, attempts, dueAt }: Pick<Delivery, 'id' | 'round' | 'attempts' | 'dueAt'>): Promise<void> {
    const attempt = attempts + 1
    const data: DeliveryJob = { id, round, attempt }
    await this.parts.queue.enqueue(this.queueName, {
      name: JOB,
      data,
      opts: {
        jobId: round === 0 && attempt === 1 ? id : `${id}~${round}.${attempt}`,
        delay: Math.max(0, dueAt - Date.now()),
        attempts: UNLIMITED,
        backoff: OUTAGE_BACKOFF,
        timeout: 0,
        removeOnComplete: true,
        removeOnFail: true,
      },
    })
  }

  /**
   * Enqueues what is pending when this process has become the one that works for the webhook: jobs in memory have gone with their
   * process, and those of a queue that another instance had. Later only what should have been attempted long ago.
   */
  private async reconcile(): Promise<void> {
    const isActive = this.consumer?.stats().active === true
    const before = this.reconciledAt
    if (!isActive) this.reconciledAt = Number.NaN
    const now = Date.now()
    const isFirst = Number.isNaN(before)
    if (!isActive || (!isFirst && Math.abs(now - before) < sweepInterval())) return
    this.reconciledAt = now
    try {
      // What ends while it is read may hide others: the next time finds them.
      for (const delivery of await this.deliveries.pending()) {
        if (isFirst || Math.max(delivery.at, delivery.dueAt) < now - sweepInterval()) await this.enqueue(delivery)
      }
    }
    catch (error) {
      this.reconciledAt = Number.NaN
      throw error
    }
  }

  /** Makes an attempt. What rejects is an outage of the store or the queue: the job is repeated. */
  private async attempt({ id, round, attempt }: DeliveryJob): Promise<null> {
    const { webhook, deliveries, parts: { counters }, stopping: { signal } } = this
    signal.throwIfAborted()
    const delivery = await deliveries.get(id)
    if (!delivery || delivery.state !== 'pending' || delivery.round !== round) return null
    if (delivery.attempts >= attempt) {
      // It ended before: only the next job is missing.
      await this.enqueue(delivery)
      return null
    }
    const end = (fields: Parameters<Deliveries['update']>[1]): Promise<void> =>
      whileRetryable(() => deliveries.update(id, { attempts: attempt, at: Date.now(), ...fields }), signal)
    const park = async (error: string, fields: Parameters<Deliveries['update']>[1] = {}): Promise<null> => {
      await end({ state: 'failed', error, ...fields })
      counters.parked += 1
      return null
    }
    if (!await this.isEnabled()) return park('the webhook is disabled', { attempts: attempt - 1 })
    const event = await deliveries.event(delivery)
    if (!event) return park('the event is no longer in the store', { attempts: attempt - 1 })

    counters.attempts += 1
    let failure: string
    let status: number | null = null
    let retryAfter = 0
    try {
      const answer = await send(webhook, id, event)
      status = answer.status
      const refusal = refusalOf(status)
      if (refusal === undefined) {
        await end({ state: 'delivered', status, error: null })
        counters.delivered += 1
        return null
      }
      failure = refusal
      retryAfter = retryAfterOf(status, answer.retryAfter, Date.now())
    }
    catch (error) {
      // The answer was good, and only that could not be stored: the job is repeated.
      if (status !== null && refusalOf(status) === undefined) throw error
      failure = errorText(error)
    }
    counters.failed += 1
    if (status === 410) {
      await whileRetryable(() => this.disableGone(), signal)
      return park(`${failure}: the webhook is disabled`, { status })
    }
    if (attempt >= webhook.attempts) return park(failure, { status })
    const dueAt = Date.now() + delayAfter(attempt, retryAfter)
    await end({ status, error: failure, dueAt })
    await whileRetryable(() => this.enqueue({ id, round, attempts: attempt, dueAt }), signal)
    return null
  }
}
