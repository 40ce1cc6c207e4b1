import { BusLink, getEventBus } from './bus'
import { json, options } from './check'
import { debug } from './debug'
import { invalid } from './errors'
import { registerMetrics } from './metrics/registry'
import type { Metric } from './metrics/registry'
import { COORDINATOR as COORDINATOR_METRICS, FLOW as FLOW_METRICS } from './metrics/tables'
import { currentAdapter } from './factory'
import { checkQueues, nativeDefinition } from './flow/define'
import { FlowRuntime } from './flow/runtime'
import { INSTANCE } from './instance'
import { addon, bridge, call, callSync, registerTarget, releaseTarget } from './native'
import type { NativeCoordinator, NativeFlowWiring } from './native'
import { join } from './options/check.js'
import { coordinatorParts, flowWiringOptions, registryOptions } from './options/wiring.js'
import { NventQueueAdapter } from './queue'
import { running } from './running'
import type { Running } from './running'
import { MemoryStoreAdapter, NventStoreAdapter } from './store'
import { NventStreamAdapter } from './stream'
import { triggerWiringOf } from './trigger/wiring'
import { webhookWiringOf } from './webhook/wiring'
import { resolvedFlows } from './startable'
import { Turns } from './turns'
import type {
  CoordinatorStats, EventBus, EventRecord, FlowStats, FlowWiring, FlowWiringOptions, QueueAdapter, StoreAdapter,
  StreamAdapter, StreamCoordinator, StreamCoordinatorOptions, StreamCoordinatorParts, Wiring, WiringRegistry, WiringRegistryOptions,
} from './types'

/** What a native wiring is linked with while it runs. */
interface Links {
  /** Lets native code call the methods of an object. */
  register: (target: object) => number
  bus: (bus: EventBus, types?: string[]) => BusLink
  /** Registers what is called when the wiring has stopped. */
  onStop: (release: () => void) => void
  /** Records the adapters that the wiring uses. */
  uses: (adapters: Omit<Running, 'stop'>) => void
}

type NativeWiring = NativeCoordinator | NativeFlowWiring

/** A native wiring whose parts are linked while it runs. */
class LinkedWiring implements Wiring {
  private native: NativeWiring | undefined
  private releases: Array<() => void> = []
  private links: BusLink[] = []
  private last = ''
  private endMetrics: ((last: any) => void) | undefined
  private readonly turns = new Turns()

  constructor(private readonly name: string, private readonly metrics: ReadonlyArray<Metric>, private readonly create: (links: Links) => NativeWiring) {}

  start(): Promise<void> {
    return this.turns.take(async () => {
      if (!this.native) {
        try {
          this.native = callSync(() => this.create({
            register: (target) => {
              const number = registerTarget(target)
              this.releases.push(() => releaseTarget(number))
              return number
            },
            bus: (bus, types = []) => {
              const link = new BusLink(bus, types)
              this.links.push(link)
              return link
            },
            onStop: release => this.releases.push(release),
            uses: (adapters) => {
              const entry = { stop: () => this.stop(), ...adapters }
              running.add(entry)
              this.releases.push(() => running.delete(entry))
            },
          }))
        }
        catch (error) {
          this.release()
          throw error
        }
        this.endMetrics = registerMetrics<any>({ metrics: this.metrics, read: () => this.stats() })
      }
      for (const link of this.links) link.start()
      const { native } = this
      await call(() => native.start())
      debug('%s has started', this.name)
    })
  }

  stop(): Promise<void> {
    return this.turns.take(async () => {
      const { native } = this
      if (!native) return
      await call(() => native.stop())
      debug('%s has stopped', this.name)
      this.last = native.stats()
      this.endMetrics?.(JSON.parse(this.last))
      this.native = undefined
      this.release()
    })
  }

  /** Returns the counters of the current session, or of the last one. */
  stats(): any {
    const text = this.native ? callSync(() => this.native!.stats()) : this.last
    return text === '' ? undefined : JSON.parse(text)
  }

  private release(): void {
    for (const link of this.links) link.stop()
    this.links = []
    for (const release of this.releases) release()
    this.releases = []
  }
}

/** Returns the native stream of an adapter, or registers the object as a target of native calls. */
const nativeStream = (stream: StreamAdapter, register: (target: object) => number) =>
  stream instanceof NventStreamAdapter ? [stream.native, 0] as const : [null, register(stream)] as const

export function createStreamCoordinator(opts: StreamCoordinatorParts = {}): StreamCoordinator {
  const { bus, stream, store, ...own } = options('', opts, coordinatorParts)
  return coordinatorOf('', own, { bus, stream, store })
}

/** Creates a coordinator. `at` is the path of `own` in messages. */
function coordinatorOf(
  at: string,
  own: StreamCoordinatorOptions,
  { bus, stream, store, runSubject }: { bus?: EventBus, stream?: StreamAdapter, store?: StoreAdapter, runSubject?: string },
): StreamCoordinator {
  const { delivery, consumer, ...channels } = own
  const settings = (isShared: boolean): string => JSON.stringify({ isShared, consumer, channels: { instanceId: INSTANCE, ...channels, runSubject } })
  callSync(() => addon.NativeCoordinator.check(at, settings(false)))
  const types = [...own.flowEventTypes ?? [], ...(own.channels ?? []).flatMap(channel => channel.types)]
  const wiring = new LinkedWiring('the stream coordinator', COORDINATOR_METRICS, (links) => {
    const used = stream ?? currentAdapter('stream')
    const onBus = bus ?? getEventBus()
    const fed = fedBy(at, delivery, store, onBus)
    links.uses({ stream: used, store: fed })
    const [native, target] = nativeStream(used, links.register)
    const linked = links.bus(onBus, types)
    return new addon.NativeCoordinator(bridge, linked.bus.native, fed?.native ?? null, native, target, settings(used.shared === true))
  })
  const none: CoordinatorStats = { routed: {}, skipped: 0, failed: 0, lag: 0 }
  return { start: () => wiring.start(), stop: () => wiring.stop(), stats: () => wiring.stats() ?? none, [Symbol.asyncDispose]: () => wiring.stop() }
}

/** Returns the store whose feed a coordinator follows. None: it follows the bus. */
function fedBy(at: string, delivery: string | undefined, store: StoreAdapter | undefined, bus: EventBus): NventStoreAdapter | undefined {
  if (delivery === 'at-most-once') return
  const candidate = store ?? currentAdapter('store', false)
  const isDurable = candidate instanceof NventStoreAdapter && !(candidate instanceof MemoryStoreAdapter)
  if (isDurable && (delivery !== undefined || candidate.bus === bus)) return candidate
  if (delivery === undefined) return
  throw invalid(`${join(at, 'delivery')}: "at-least-once" needs a file or Redis store: pass it as store, or make it current`)
}

/** Returns the calls of flow wiring on a store that is not native, over the surface that the store has. */
const storePort = (store: any): object => ({
  append: (subject: string, event: any, opts: any): Promise<EventRecord> =>
    store.stream?.append ? store.stream.append(subject, event, opts ?? undefined) : store.append(subject, event),
  read: (subject: string, opts: any): Promise<EventRecord[]> => {
    const given = opts.after ? { after: opts.after } : undefined
    return store.stream?.read ? store.stream.read(subject, given) : store.read(subject, given)
  },
  indexAdd: (...args: any[]) => store.index ? store.index.add(...args) : store.indexAdd(...args),
  indexUpdate: (...args: any[]) => store.index ? store.index.update(...args) : store.indexUpdate(...args),
  indexRead: (...args: any[]) => store.index ? store.index.read(...args) : store.indexRead(...args),
})

/** Returns the calls of flow wiring on a queue that is not native. A queue that only has `enqueue` reports no jobs. */
const queuePort = (queue: QueueAdapter): object => ({
  enqueue: (...args: Parameters<QueueAdapter['enqueue']>) => queue.enqueue(...args),
  job: async (name: string, id: string) => plainJob(typeof queue.getJob === 'function' ? await queue.getJob(name, id) : null),
  endedJobs: async (name: string, limit: number) => {
    const jobs = typeof queue.getJobs === 'function' ? await queue.getJobs(name, { state: ['completed', 'failed'], limit }) : []
    return Promise.all(jobs.map(plainJob))
  },
})

/** Returns the fields of a job that flow wiring reads: the job of a foreign queue may be an object that has no JSON. */
async function plainJob(job: any): Promise<object | null> {
  if (!job) return null
  const state = job.state ?? await job.getState?.()
  return { id: String(job.id), name: job.name, data: job.data, opts: job.opts, state, failedReason: job.failedReason }
}

export function createFlowWiring(opts: FlowWiringOptions = {}): FlowWiring {
  return flowWiringOf(opts, {})
}

/** Creates flow wiring. The stream carries cancellations between instances. */
function flowWiringOf(
  opts: FlowWiringOptions,
  { stream, keepState }: { stream?: () => StreamAdapter | undefined, keepState?: number },
): FlowWiring {
  const { bus, store, queue, flows, subjects: templates = {} } = options('', opts, flowWiringOptions)
  callSync(() => addon.NativeFlowWiring.checkSubjects(JSON.stringify(templates)))
  if (Array.isArray(flows)) {
    callSync(() => addon.NativeFlowWiring.checkFlows(json('flows', flows.map(nativeDefinition))))
    checkQueues(flows)
  }
  let runtime: FlowRuntime | undefined
  const wiring = new LinkedWiring('flow wiring', FLOW_METRICS, ({ register, bus: link, onStop, uses }) => {
    const used: StoreAdapter = store ?? currentAdapter('store')
    const jobs: QueueAdapter | undefined = queue ?? currentAdapter('queue', false)
    uses({ store: used, queue: jobs })
    if (typeof (used.stream?.append ?? used.append) !== 'function') throw invalid('store: is no store adapter, it has no append')
    const [native, target] = used instanceof NventStoreAdapter ? [used.native, 0] as const : [null, register(storePort(used))] as const
    const [nativeJobs, queueTarget] = jobs instanceof NventQueueAdapter ? [jobs.native, 0] as const : [null, jobs ? register(queuePort(jobs)) : 0] as const
    const linked = link(bus ?? getEventBus())
    const created = new addon.NativeFlowWiring(
      bridge, linked.bus.native, native, target, nativeJobs, queueTarget, JSON.stringify(templates),
    )
    const defined = resolvedFlows(flows)
    created.setFlows(json('flows', defined.map(nativeDefinition)))
    if (jobs && !nativeJobs && typeof jobs.on === 'function') {
      for (const name of JSON.parse(created.queues()) as string[]) {
        onStop(jobs.on(name, 'failed', ({ jobId, name: step, failedReason }) => created.jobFailed(name, jobId, step, failedReason)))
      }
    }
    runtime = jobs && new FlowRuntime({
      flows: defined,
      store: used,
      queue: jobs,
      stream: stream?.(),
      subjects: templates,
      keepState,
      claimEntry: async (flow, runId) => call<boolean>(() => created.claimEntry(flow, runId)),
      takeUp: (flow, runId) => callSync(() => created.takeUp(flow, runId)),
    })
    return created
  })
  const none: FlowStats = { persisted: 0, triggered: 0, completed: 0, failed: 0, retries: 0, lag: 0, lost: 0, errors: 0, recovered: 0 }
  const turns = new Turns()
  const stop = (): Promise<void> => turns.take(async () => {
    await runtime?.stop()
    await wiring.stop()
  })
  return {
    start: () => turns.take(async () => {
      await wiring.start()
      // Its steps are registered once the wiring follows their events.
      await runtime?.start()
    }),
    stop,
    [Symbol.asyncDispose]: stop,
    stats: () => wiring.stats() ?? none,
  }
}

export function createWiringRegistry(opts: WiringRegistryOptions = {}): WiringRegistry {
  const { streamCoordinator, flow, store, stream, queue, bus, wirings = [], triggers: definitions, webhooks: receivers } = options('', opts, registryOptions)
  const { flows, subjects, keepState } = flow || {}
  const flowWiring = flow === false ? undefined : flowWiringOf(defined({ bus, store, queue, flows, subjects }), { stream: () => stream ?? currentAdapter('stream', false), keepState })
  const coordinator = coordinatorOf('streamCoordinator', streamCoordinator ?? {}, { bus, stream, store, runSubject: subjects?.run })
  if (flow === false && definitions !== undefined) throw invalid('triggers: start flows of this registry, and flow is false')
  const triggers = definitions === undefined
    ? undefined
    : triggerWiringOf(defined({ store, queue, flows: flows ?? [], triggers: definitions }))
  const webhooks = receivers === undefined ? undefined : webhookWiringOf(defined({ store, stream, queue, webhooks: receivers }))
  // The coordinator starts first and stops last, so that it receives everything that the others persist.
  const builtIn: Wiring[] = flowWiring ? [coordinator, flowWiring] : [coordinator]
  const all = [...builtIn, ...wirings] as Wiring[]
  const begin = (wiring: Wiring): void | Promise<void> => {
    started.push(wiring)
    return wiring.start()
  }
  let started: Wiring[] = []
  let entry: Running | undefined
  const turns = new Turns()
  const stop = async (): Promise<void> => {
    const stopping = started.reverse()
    started = []
    if (entry) running.delete(entry)
    entry = undefined
    const failures: unknown[] = []
    for (const wiring of stopping) {
      try {
        await wiring.stop()
      }
      catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }
  const start = async (): Promise<void> => {
    if (started.length > 0) return
    try {
      const starting = all.map(begin)
      entry = {
        stop: () => turns.take(stop),
        store: store ?? currentAdapter('store', false),
        stream: stream ?? currentAdapter('stream', false),
        queue: queue ?? currentAdapter('queue', false),
      }
      running.add(entry)
      await Promise.all(starting)
      if (webhooks) await begin(webhooks)
      // They start flows, so these come first; and they stop first.
      if (triggers) await begin(triggers)
    }
    catch (error) {
      await stop().catch(() => {})
      throw error
    }
  }
  return {
    start: () => turns.take(start),
    stop: () => turns.take(stop),
    [Symbol.asyncDispose]: () => turns.take(stop),
    stats: () => ({
      streamCoordinator: coordinator.stats(), ...(flowWiring ? { flow: flowWiring.stats() } : {}), ...(triggers ? { triggers: triggers.stats() } : {}),
      ...(webhooks ? { webhooks: webhooks.stats() } : {}),
    }),
    ...triggers ? { triggers } : {},
    ...webhooks ? { webhooks } : {},
  }
}

const defined = <T extends object>(value: T): any =>
  Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined))
