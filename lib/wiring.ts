import { randomUUID } from 'node:crypto'
import { BusLink, getEventBus } from './bus'
import { json, object, options } from './check'
import { invalid } from './errors'
import { currentAdapter } from './factory'
import { nativeDefinition } from './flow/define'
import { FlowRuntime } from './flow/runtime'
import { addon, bridge, call, lend, now, takeBack } from './native'
import type { NativeWiring } from './native'
import { NventQueueAdapter } from './queue'
import { NventStoreAdapter } from './store'
import { NventStreamAdapter } from './stream'
import type {
  CoordinatorStats, EventBus, EventRecord, FlowDefinition, FlowStats, FlowWiringOptions, QueueAdapter, StoreAdapter,
  StreamAdapter, StreamCoordinatorOptions, Wiring, WiringRegistryOptions,
} from './types'

const COORDINATOR = {
  enableStoreSync: 'boolean', enableFlowEvents: 'boolean', enableClientMessages: 'boolean',
  channels: 'array', flowEventTypes: 'array', instanceId: 'string',
} as const

/** `metadata.instanceId` of the messages of this process. */
const INSTANCE = randomUUID()

/** Checks that an object given by the user has methods. */
function requireMethods<T extends object>(what: string, value: T, methods: string[]): T {
  object(what, value)
  for (const method of methods) {
    if (typeof (value as any)[method] !== 'function') throw invalid(`${what}.${method}: expected a function`)
  }
  return value
}

/** A native wiring whose parts are linked while it runs. */
class LinkedWiring implements Wiring {
  private native: NativeWiring | undefined
  private targets: number[] = []
  private link: BusLink | undefined
  private last = ''

  constructor(private readonly create: (lend: (target: object) => number, link: (bus: EventBus, types?: string[]) => BusLink) => NativeWiring) {}

  async start(): Promise<void> {
    if (!this.native) {
      try {
        this.native = now(() => this.create(
          (target) => {
            const number = lend(target)
            this.targets.push(number)
            return number
          },
          (bus, types) => this.link = new BusLink(bus, types),
        ))
      }
      catch (error) {
        this.release()
        throw error
      }
    }
    this.link?.start()
    const { native } = this
    await call(() => native.start())
  }

  async stop(): Promise<void> {
    const { native } = this
    if (!native) return
    await call(() => native.stop())
    this.last = native.stats()
    this.native = undefined
    this.release()
  }

  /** Returns the counters of the current session, or of the last one. */
  stats(): any {
    const text = this.native ? now(() => this.native!.stats()) : this.last
    return text === '' ? undefined : JSON.parse(text)
  }

  private release(): void {
    this.link?.stop()
    this.link = undefined
    this.targets.forEach(takeBack)
    this.targets = []
  }
}

/** Returns the native stream of an adapter, or registers the object as a target of native calls. */
const nativeStream = (stream: StreamAdapter, lend: (target: object) => number) =>
  stream instanceof NventStreamAdapter ? [stream.native, 0] as const : [null, lend(stream)] as const

export function createStreamCoordinator(
  opts: StreamCoordinatorOptions & { bus?: EventBus, stream?: StreamAdapter } = {},
): Wiring & { stats(): CoordinatorStats } {
  const { bus, stream, ...own } = options('options', opts, { ...COORDINATOR, bus: 'object', stream: 'object' })
  return coordinatorOf('options', own, { bus, stream })
}

/** `what` is the path of `own` in messages. */
function coordinatorOf(
  what: string,
  own: Record<string, any>,
  { bus, stream, runSubject }: { bus?: EventBus, stream?: StreamAdapter, runSubject?: string },
): Wiring & { stats(): CoordinatorStats } {
  own['channels']?.forEach((row: unknown, i: number) => {
    const at = `${what}.channels[${i}]`
    const { name, types, topic } = options(at, object(at, row), { name: 'string', types: 'array', topic: 'string', type: 'string' })
    for (const [field, value] of Object.entries({ name, types, topic })) {
      if (value === undefined) throw invalid(`${at}.${field} is required`)
    }
  })
  if (bus !== undefined) requireMethods('options.bus', bus, ['publish', 'onType'])
  if (stream !== undefined) requireMethods('options.stream', stream, ['publish'])
  const settings = JSON.stringify({ instanceId: INSTANCE, ...own, runSubject })
  const types = [...own['flowEventTypes'] ?? [], ...(own['channels'] ?? []).flatMap((row: any) => row.types)]
  const wiring = new LinkedWiring((lend, link) => {
    const [native, target] = nativeStream(stream ?? currentAdapter('stream'), lend)
    const linked = link(bus ?? getEventBus(), types)
    return new addon.NativeCoordinator(bridge, linked.bus.native, native, target, settings)
  })
  const none: CoordinatorStats = { routed: {}, skipped: 0, failed: 0, lag: 0 }
  return { start: () => wiring.start(), stop: () => wiring.stop(), stats: () => wiring.stats() ?? none }
}

/** The calls of flow wiring on a store that is not native, over the surface that the store has. */
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

export function createFlowWiring(opts: FlowWiringOptions = {}): Wiring & { stats(): FlowStats } {
  return flowWiringOf(opts, {})
}

/** The stream carries cancellations between instances. */
function flowWiringOf(
  opts: FlowWiringOptions,
  { stream, keepState }: { stream?: () => StreamAdapter | undefined, keepState?: number },
): Wiring & { stats(): FlowStats } {
  const { bus, store, queue, flows, subjects } = options('options', opts, {
    bus: 'object', store: 'object', queue: 'object', flows: ['array', 'function'], subjects: 'object',
  })
  const templates = options('options.subjects', subjects, { run: 'string', runIndex: 'string' })
  if (bus !== undefined) requireMethods('options.bus', bus, ['publish', 'onType'])
  if (queue !== undefined) requireMethods('options.queue', queue, ['enqueue'])
  let runtime: FlowRuntime | undefined
  const wiring = new LinkedWiring((lend, link) => {
    const used: StoreAdapter = store ?? currentAdapter('store')
    const jobs: QueueAdapter | undefined = queue ?? currentAdapter('queue', false)
    const [native, target] = used instanceof NventStoreAdapter ? [used.native, 0] as const : [null, lend(storePort(used))] as const
    const [nativeJobs, lentJobs] = jobs instanceof NventQueueAdapter ? [jobs.native, 0] as const : [null, jobs ? lend(jobs) : 0] as const
    const linked = link(bus ?? getEventBus())
    const created = new addon.NativeFlowWiring(
      bridge, linked.bus.native, native, target, nativeJobs, lentJobs, JSON.stringify(templates),
    )
    const defined: FlowDefinition[] = typeof flows === 'function' ? flows() : flows ?? []
    created.setFlows(json('options.flows', defined.map(nativeDefinition)))
    runtime = jobs && new FlowRuntime({ flows: defined, store: used, queue: jobs, stream: stream?.(), subjects: templates, keepState })
    return created
  })
  const none: FlowStats = { persisted: 0, triggered: 0, completed: 0, failed: 0, retries: 0, lag: 0, lost: 0, errors: 0 }
  return {
    start: async () => {
      await wiring.start()
      // Its steps are registered once the wiring follows their events.
      await runtime?.start()
    },
    stop: async () => {
      await runtime?.stop()
      await wiring.stop()
    },
    stats: () => wiring.stats() ?? none,
  }
}

const REGISTRY = {
  streamCoordinator: 'object', flow: ['boolean', 'object'], store: 'object', stream: 'object', queue: 'object', bus: 'object', wirings: 'array',
} as const

export function createWiringRegistry(opts: WiringRegistryOptions = {}): Wiring & { stats(): any } {
  const { streamCoordinator, flow, store, stream, queue, bus, wirings = [] } = options('options', opts, REGISTRY as any)
  if (flow === true) throw invalid('options.flow: expected false or an object')
  const { flows, subjects, keepState } = options('options.flow', flow || undefined, { flows: ['array', 'function'], subjects: 'object', keepState: 'number' })
  if (keepState !== undefined && !(keepState >= 0)) throw invalid(`options.flow.keepState: expected milliseconds from 0, got ${keepState}`)
  wirings.forEach((wiring: Wiring, i: number) => requireMethods(`options.wirings[${i}]`, wiring, ['start', 'stop']))
  const flowWiring = flow === false ? undefined : flowWiringOf(defined({ bus, store, queue, flows, subjects }), { stream: () => stream ?? currentAdapter('stream', false), keepState })
  const routing = options('options.streamCoordinator', streamCoordinator, COORDINATOR as any)
  const coordinator = coordinatorOf('options.streamCoordinator', routing, { bus, stream, runSubject: subjects?.run })
  // The coordinator starts first and stops last, so that it receives everything that the others persist.
  const builtIn: Wiring[] = flowWiring ? [coordinator, flowWiring] : [coordinator]
  const all = [...builtIn, ...wirings] as Wiring[]
  let started: Wiring[] = []
  let turn: Promise<void> | undefined
  /** Serialises starts and stops; the first begins at once, so that an append right after `start()` is routed. */
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const mine: Promise<void> = turn ? turn.then(work, work) : work()
    turn = mine
    const over = (): void => {
      if (turn === mine) turn = undefined
    }
    mine.then(over, over)
    return mine
  }
  const stop = async (): Promise<void> => {
    const stopping = started.reverse()
    started = []
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
      const starting = all.map((wiring) => {
        started.push(wiring)
        return wiring.start()
      })
      await Promise.all(starting)
    }
    catch (error) {
      await stop().catch(() => {})
      throw error
    }
  }
  return {
    start: () => inTurn(start),
    stop: () => inTurn(stop),
    stats: () => ({ streamCoordinator: coordinator.stats(), ...(flowWiring ? { flow: flowWiring.stats() } : {}) }),
  }
}

const defined = <T extends object>(value: T): any =>
  Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined))
