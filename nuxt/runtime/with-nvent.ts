/**
 * With nvent: registers the native adapters and runs the native StreamCoordinator beside nvent's own wiring.
 *
 * nvent's order is: hook `nvent:register-adapters`, adapters, scheduler, wiring, hook `nvent:adapters:ready` (workers). At
 * the end it drains its queue; its wiring goes on writing to the store meanwhile and for a moment after.
 */
import { createStreamCoordinator } from 'nvent-native/native'
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'
import { registerQueueAdapter, registerStoreAdapter, registerStreamAdapter, useRuntimeConfig, useStreamAdapter } from '#imports'
import type { NitroApp } from 'nitropack'
import { Activity } from './activity.js'
import { memoryAdapters, nativeAdapters } from './adapters.js'
import { serverConfig, unknownVariableWarnings, type BuiltConfig, type ServerConfig } from './config.js'
import { hookLast } from './hooks.js'
import { lenientQueue, lenientStore, lenientStream } from './lenient.js'
import { Startup } from './startup.js'

/** The adapters are closed once nothing has used them for this long, in ms … */
const QUIET_DELAY = 250
/** … or, where something uses them without end, this long after the queue has drained, in ms. */
const QUIET_TIMEOUT = 5_000

interface Created<Q = RegisteredQueue> {
  stores: Record<string, StoreAdapter>
  streams: Record<string, StreamAdapter>
  queues: Record<string, Q>
}
/** A queue as nvent gets it: `close` drains it, `end` closes it. */
type RegisteredQueue = QueueAdapter & { drain(): Promise<void>, end(): Promise<void>, holdWorkers?(isHeld: boolean): void }

export default (nitroApp: NitroApp) => {
  const { nventNative: built, nvent } = useRuntimeConfig() as unknown as { nventNative: BuiltConfig, nvent: unknown }
  // Routes that are rendered during the build get adapters that keep nothing.
  if (import.meta.prerender) {
    hookLast(nitroApp, 'nvent:register-adapters', () => register(inMemory(), built.options.replace))
    return
  }
  const startup = new Startup(nitroApp, built.options.openTimeout)
  const activity = new Activity()
  let created: Created | undefined
  let config: ServerConfig
  let endRouting: (() => Promise<void>) | undefined
  let wiringListens = () => {}
  const listening = new Promise<void>(resolve => wiringListens = resolve)
  let everythingRegistered = () => {}
  const registered = new Promise<void>(resolve => everythingRegistered = resolve)

  // After nvent's own adapter packages, which register the same names.
  hookLast(nitroApp, 'nvent:register-adapters', async () => {
    try {
      unknownVariableWarnings(nvent, process.env).forEach(warning => console.warn(`[nvent-native] ${warning}`))
      config = serverConfig(built, process.env)
      startup.openTimeout = config.openTimeout
      const adapters = created = create(config)
      for (const store of Object.values(adapters.stores)) {
        lenientStore(store)
        ;[store, store.stream, store.kv, store.index].forEach(part => activity.watch(part))
      }
      Object.values(adapters.streams).forEach(lenientStream)
      for (const queue of Object.values(adapters.queues)) {
        lenientQueue(queue)
        // What nvent registers while it starts runs when all handlers are there: `startWorkers` starts each queue.
        queue.holdWorkers?.(true)
        activity.watch(queue, ['enqueue', 'schedule'])
        holdEnqueues(queue, Promise.race([listening, startup.wait()]))
        startWorkers(queue, registered)
      }
      register(adapters, config.replace)
      await startup.open(() => openChosen(adapters, config))
    }
    catch (error) {
      startup.fail(error)
      throw error
    }
  })

  nitroApp.hooks.hook('nvent:adapters:ready', async () => {
    wiringListens()
    const routing = createStreamCoordinator({ ...config.coordinator, stream: useStreamAdapter() })
    endRouting = async () => routing.stop()
    await routing.start()
  })
  hookLast(nitroApp, 'nvent:adapters:ready', () => {
    everythingRegistered()
    startup.ready()
  })

  // After nvent has drained its queue, and after everything else that ends with the server. nvent closes no store.
  hookLast(nitroApp, 'close', async () => {
    startup.close()
    if (!created) return
    const queues = Object.values(created.queues)
    await settleAll(queues.map(queue => queue.drain()))
    await activity.quiet(QUIET_DELAY, QUIET_TIMEOUT)
    await settleAll([endRouting?.()])
    // `close` of a registered queue only drains it.
    await settleAll(queues.map(queue => queue.end()))
    await settleAll([...Object.values(created.streams).map(stream => stream.shutdown()), ...Object.values(created.stores).map(store => store.close())])
  })
}

/** Makes the native adapters of every backend; those that the app does not choose cost nothing. */
function create(config: ServerConfig): Created {
  const { stores, streams, queues } = nativeAdapters(config)
  return { stores: made(stores), streams: made(streams), queues: made(queues) as Created['queues'] }
}

/** Creates adapters that keep nothing, under the names of all backends. */
function inMemory(): Created<QueueAdapter> {
  const { store, stream, queue } = memoryAdapters()
  return { stores: { memory: store, file: store, redis: store }, streams: { memory: stream, redis: stream }, queues: { memory: queue, file: queue } }
}

const made = <T>(makers: Record<string, () => T>): Record<string, T> =>
  Object.fromEntries(Object.entries(makers).map(([backend, make]) => [backend, make()]))

/** Registers adapters under their native names, and with `replace` under those of nvent's own. */
function register({ stores, streams, queues }: Created<QueueAdapter>, replace = true) {
  const names = (backend: string) => replace ? [`native-${backend}`, backend] : [`native-${backend}`]
  for (const [backend, store] of Object.entries(stores)) names(backend).forEach(name => registerStoreAdapter(name, store))
  for (const [backend, stream] of Object.entries(streams)) names(backend).forEach(name => registerStreamAdapter(name, stream))
  for (const [backend, queue] of Object.entries(queues)) names(backend).forEach(name => registerQueueAdapter(name, queue))
}

/** Opens those adapters that the app has chosen; the others open on first use, which never comes. */
async function openChosen({ stores, streams, queues }: Created, { store, stream, queue, replace }: ServerConfig) {
  const chosen = <T>(adapters: Record<string, T>, adapter: string): T | undefined =>
    replace || adapter.startsWith('native-') ? adapters[adapter.replace(/^native-/, '')] : undefined
  await chosen(stores, store.adapter)?.init()
  await chosen(streams, stream.adapter)?.init()
  await chosen(queues, queue.adapter)?.init()
}

/**
 * Makes `enqueue` wait until nvent's wiring listens: what starts a run publishes right after it has enqueued. Makes
 * `close`, which nvent calls first of all at the end, only drain the queue: steps that end meanwhile enqueue others,
 * which are stored for the next start.
 */
function holdEnqueues(queue: RegisteredQueue, listening: Promise<void>) {
  const enqueue = queue.enqueue.bind(queue)
  queue.enqueue = async (...args) => {
    await listening
    return enqueue(...args)
  }
  void listening.then(() => queue.enqueue = enqueue)
  queue.end = queue.close.bind(queue)
  queue.close = () => queue.drain()
}

/**
 * Makes workers run without `startProcessingQueue`, which is optional in nvent's interface; those with `autorun: false` wait
 * for `resume` all the same. Those registered while the server starts run once all are there.
 */
function startWorkers(queue: RegisteredQueue, registered: Promise<void>) {
  const registerWorker = queue.registerWorker.bind(queue)
  queue.registerWorker = (name, jobName, handler, opts) => {
    registerWorker(name, jobName, handler, opts)
    registered.then(() => queue.startProcessingQueue(name)).catch(error => console.error(`[nvent-native] the queue ${name} was not started:`, error))
  }
}

/** Waits for all, and reports those that fail. */
async function settleAll(work: Iterable<Promise<unknown> | undefined>) {
  for (const result of await Promise.allSettled(work)) {
    if (result.status === 'rejected') console.error('[nvent-native] while closing:', result.reason)
  }
}
