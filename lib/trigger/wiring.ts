import { randomUUID } from 'node:crypto'
import { json, named, options } from '../check'
import { invalid, NventError } from '../errors'
import { currentAdapter } from '../factory'
import { registerMetrics } from '../metrics/registry'
import { TRIGGERS } from '../metrics/tables'
import { fireOptions, triggerWiringOptions } from '../options/wiring.js'
import { running } from '../running'
import type { Running } from '../running'
import { consumableStore, resolved, resolvedFlows, Startable, stopAll } from '../startable'
import type {
  ListedTrigger, ParkedConsumerEvent, StoreAdapter, TriggerStats, TriggerWiring, TriggerWiringOptions,
} from '../types'
import { Warnings } from '../warn'
import { Causes } from './causes'
import { triggersOf } from './definition'
import type { Trigger } from './definition'
import { Starts } from './firing'
import { ActiveTrigger } from './active'

const key = Symbol.for('nvent-native.trigger-wirings')
const shared = globalThis as { [key]?: Set<Triggers> }
/** The trigger wirings that are started in this JavaScript environment, however often the package was loaded. */
export const triggerWirings = shared[key] ??= new Set<Triggers>()

export function createTriggerWiring(opts: TriggerWiringOptions): TriggerWiring {
  return triggerWiringOf(opts)
}

export function triggerWiringOf(opts: TriggerWiringOptions): TriggerWiring {
  const checked = options('', opts, triggerWiringOptions)
  return new Triggers(checked)
}

/** What a started wiring has. */
interface Session {
  store: StoreAdapter
  causes: Causes
  active: Map<string, ActiveTrigger>
  entry: Running
  endMetrics?: (last?: TriggerStats) => void
}

class Triggers extends Startable implements TriggerWiring {
  private session: Session | undefined
  private readonly counters = { fired: 0, started: 0, failed: 0, depth: 0 }
  private readonly warnings = new Warnings('a trigger')

  constructor(private readonly opts: TriggerWiringOptions) {
    super()
    const { flows, triggers } = opts
    // What is given as a function is checked when it is called, at the start.
    if (Array.isArray(triggers)) triggersOf('triggers', triggers, Array.isArray(flows) ? flows : undefined)
  }

  async fire(id: string, data?: any, opts?: { idempotencyKey?: string }): Promise<{ runIds: string[], created: boolean }> {
    const { idempotencyKey } = options('options', opts, fireOptions)
    const active = this.active(id)
    if (data !== undefined) json('data', data)
    if (!await active.gate.isOn()) throw invalid(`trigger ${JSON.stringify(id)} is disabled: enable it first`)
    return active.fireByHand(idempotencyKey === undefined ? randomUUID() : `key:${idempotencyKey}`, data)
  }

  async list(): Promise<ListedTrigger[]> {
    const { store, active } = this.open()
    const consumers = new Map((await store.consumers()).map(consumer => [consumer.name, consumer]))
    return Promise.all([...active.values()].map(async ({ trigger, gate, firing, schedule, consumerName }) => {
      const [enabled, { fired, lastFiredAt }] = await Promise.all([gate.isOn(), firing.history.count()])
      const nextRunAt = enabled ? schedule?.next() ?? undefined : undefined
      return {
        id: trigger.id, kind: trigger.kind, enabled, fired, parked: consumers.get(consumerName)?.parked ?? 0,
        ...lastFiredAt === undefined ? {} : { lastFiredAt }, ...nextRunAt === undefined ? {} : { nextRunAt },
      }
    }))
  }

  enable(id: string): Promise<void> {
    return this.active(id).set(true)
  }

  disable(id: string): Promise<void> {
    return this.active(id).set(false)
  }

  async parked(id: string, opts?: { limit?: number, after?: string }): Promise<ParkedConsumerEvent[]> {
    return this.active(id).consumer.parked(opts)
  }

  async replay(id: string, positions?: string[]): Promise<number> {
    return this.active(id).consumer.replay(positions)
  }

  stats(): TriggerStats {
    const active = [...this.session?.active.values() ?? []]
    const sum = (count: (one: ActiveTrigger) => number): number => active.reduce((total, one) => total + count(one), 0)
    return {
      triggers: active.length, ...this.counters,
      waiting: sum(({ windows }) => windows?.waiting ?? 0),
      parked: sum(({ consumer }) => consumer.stats().parked),
    }
  }

  /** Returns a trigger that requests are for, or undefined. @internal */
  webhook(id: string): ActiveTrigger | undefined {
    const active = this.session?.active.get(id)
    return active?.trigger.kind === 'webhook' ? active : undefined
  }

  private open(): Session {
    if (!this.session) throw new NventError('NVENT_CLOSED', 'the triggers are not started: await start() of their wiring first')
    return this.session
  }

  private active(id: string): ActiveTrigger {
    return named('trigger', 'id', id, this.open().active)
  }

  protected async begin(): Promise<void> {
    if (this.session) return
    const { opts, counters } = this
    const store = consumableStore(opts.store, 'triggers')
    const queue = opts.queue ?? currentAdapter('queue', false)
    const flows = resolvedFlows(opts.flows)
    const triggers = triggersOf('triggers', resolved(opts.triggers), flows)
    Object.assign(counters, { fired: 0, started: 0, failed: 0, depth: 0 })
    const starts = new Starts({ store, queue, flows, counters })
    const causes = new Causes(store, this.warnings.handlerFailed)
    const entry: Running = { stop: () => this.stop(), store, queue }
    const session: Session = { store, causes, entry, active: new Map() }
    try {
      await Promise.all(Array.from(triggers.values(), async (trigger: Trigger) => {
        const active = new ActiveTrigger(trigger, starts, causes, this.warnings.handlerFailed)
        session.active.set(trigger.id, active)
        await active.start()
      }))
    }
    catch (error) {
      await this.close(session).catch(() => {})
      throw error
    }
    // In the order of the definition.
    session.active = new Map(Array.from(triggers.keys(), id => [id, session.active.get(id)!]))
    causes.start()
    this.session = session
    session.endMetrics = registerMetrics({ metrics: TRIGGERS, read: () => this.stats() })
    running.add(entry)
    triggerWirings.add(this)
  }

  protected async end(): Promise<void> {
    const { session } = this
    if (!session) return
    session.endMetrics?.(this.stats())
    this.session = undefined
    triggerWirings.delete(this)
    running.delete(session.entry)
    await this.close(session)
  }

  private async close({ active, causes }: Session): Promise<void> {
    causes.stop()
    await stopAll(active.values())
  }
}
