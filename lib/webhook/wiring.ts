import { randomUUID } from 'node:crypto'
import { named, options, text } from '../check'
import { invalid, NventError } from '../errors'
import { currentAdapter } from '../factory'
import { registerMetrics } from '../metrics/registry'
import { WEBHOOKS } from '../metrics/tables'
import { deliveriesOptions, webhookWiringOptions } from '../options/wiring.js'
import { running } from '../running'
import type { Running } from '../running'
import { consumableStore, resolved, Startable, stopAll } from '../startable'
import type { WebhookDelivery, WebhookDeliveryState, WebhookStats, WebhookWiring, WebhookWiringOptions } from '../types'
import { Warnings } from '../warn'
import { ActiveWebhook } from './active'
import { webhooksOf } from './definition'
import { listed, webhookOf } from './deliveries'
import type { Delivery } from './deliveries'
import { send } from './send'

export function createWebhookWiring(opts: WebhookWiringOptions): WebhookWiring {
  return webhookWiringOf(opts)
}

export function webhookWiringOf(opts: WebhookWiringOptions): WebhookWiring {
  const checked = options('', opts, webhookWiringOptions)
  return new Webhooks(checked)
}

/** What a started wiring has. */
interface Session { active: Map<string, ActiveWebhook>, entry: Running, endMetrics: (last?: WebhookStats) => void }

class Webhooks extends Startable implements WebhookWiring {
  private session: Session | undefined
  private readonly counters = { taken: 0, skipped: 0, attempts: 0, delivered: 0, failed: 0, parked: 0 }
  private readonly warnings = new Warnings('a webhook')

  constructor(private readonly opts: WebhookWiringOptions) {
    super()
    // What is given as a function is checked when it is called, at the start.
    if (Array.isArray(opts.webhooks)) webhooksOf('webhooks', opts.webhooks)
  }

  async deliveries(name: string, opts?: { state?: WebhookDeliveryState, limit?: number }): Promise<WebhookDelivery[]> {
    const { state, limit } = options('options', opts, deliveriesOptions)
    return (await this.active(name).deliveries.list(state, limit)).map(listed)
  }

  async redeliver(id: string): Promise<void> {
    const unknown = new NventError('NVENT_NOT_FOUND', `there is no delivery ${JSON.stringify(text('id', id))}`)
    const active = this.open().active.get(webhookOf(id))
    const delivery: Delivery | undefined = await active?.deliveries.get(id)
    if (!active || !delivery) throw unknown
    if (delivery.state === 'pending') return
    if (!await active.isEnabled()) throw invalid(`the webhook ${JSON.stringify(active.webhook.name)} is disabled: enable it first`)
    await active.redeliver(delivery)
  }

  async test(name: string): Promise<{ status: number, ms: number }> {
    const { webhook } = this.active(name)
    const ts = Date.now()
    const event = { id: `${ts}-0`, ts, type: 'webhook.test', data: { webhook: webhook.name } }
    const { status, ms } = await send(webhook, `${webhook.name}:test:${randomUUID()}`, event)
    return { status, ms }
  }

  async enable(name: string): Promise<void> {
    await this.active(name).enable()
  }

  async disable(name: string): Promise<void> {
    await this.active(name).disable('disable()')
  }

  async isEnabled(name: string): Promise<boolean> {
    return this.active(name).isEnabled()
  }

  stats(): WebhookStats {
    const active = [...this.session?.active.values() ?? []]
    return { webhooks: active.length, ...this.counters, running: active.reduce((total, one) => total + one.running, 0) }
  }

  private open(): Session {
    if (!this.session) throw new NventError('NVENT_CLOSED', 'the webhooks are not started: await start() of their wiring first')
    return this.session
  }

  private active(name: string): ActiveWebhook {
    return named('webhook', 'name', name, this.open().active)
  }

  protected async begin(): Promise<void> {
    if (this.session) return
    const { opts, counters } = this
    const store = consumableStore(opts.store, 'webhooks')
    const queue = opts.queue ?? currentAdapter('queue')
    const stream = opts.stream ?? currentAdapter('stream', false)
    const parts = { store, queue, stream, counters, failed: this.warnings.handlerFailed }
    const active = new Map(Array.from(webhooksOf('webhooks', resolved(opts.webhooks)).values(), webhook => [webhook.name, new ActiveWebhook(webhook, parts)]))
    try {
      await Promise.all(Array.from(active.values(), one => one.start()))
    }
    catch (error) {
      await stopAll(active.values()).catch(() => {})
      throw error
    }
    const entry: Running = { stop: () => this.stop(), store, queue, stream }
    this.session = { active, entry, endMetrics: registerMetrics({ metrics: WEBHOOKS, owner: this, read: () => this.stats() }) }
    running.add(entry)
  }

  protected async end(): Promise<void> {
    const { session } = this
    if (!session) return
    try {
      await stopAll(session.active.values())
    }
    finally {
      session.endMetrics(this.stats())
      this.session = undefined
      running.delete(session.entry)
    }
  }
}
