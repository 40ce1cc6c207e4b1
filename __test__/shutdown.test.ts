import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import {
  createAdapters, createEventBus, createFlowWiring, createStreamCoordinator, createWiringRegistry, FileStoreAdapter, getEventBus, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, setAdapters, shutdown,
  shutdownAdapters, useStoreAdapter,
} from 'nvent-native'
import type { Adapters } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { gate, rejects } from './support/until'

const FLOW = { id: 'f', entry: { step: 'a', queue: 'q', emits: ['x'] }, steps: { b: { subscribes: ['x'], queue: 'q' } } }

let dataDir: string
beforeEach(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-shutdown-'))
})
afterEach(async () => {
  await shutdown()
  await rm(dataDir, { recursive: true, force: true })
})

/** Starts a run whose first step is at work, and returns what lets it go on. */
async function atWork(): Promise<() => void> {
  const { queue } = await createAdapters({ connections: { file: { dataDir } } })
  const wiring = createWiringRegistry({ flow: { flows: [FLOW] } })
  await wiring.start()
  const [working, go] = [gate(), gate()]
  queue.registerWorker('q', 'a', async ({ data: { flowId: runId, flowName } }) => {
    const publish = (type: string, data = {}): void => getEventBus().publish({ type, runId, flowName, stepName: 'a', data })
    publish('step.started')
    working.open()
    await go.opened
    publish('emit', { name: 'x', payload: 1 })
    publish('step.completed')
  })
  queue.startProcessingQueue('q')
  getEventBus().publish({ type: 'flow.start', runId: 'r1', flowName: 'f', data: {} })
  await queue.enqueue('q', { name: 'a', data: { flowId: 'r1', flowName: 'f', input: {} }, opts: { jobId: 'r1__a' } })
  await working.opened
  return go.open
}

it.each([['shutdown', shutdown], ['shutdownAdapters', () => shutdownAdapters()]])('%s loses nothing of the handlers at work, and their next steps are enqueued', async (_, end) => {
  const go = await atWork()
  const ended = end()
  go()
  await ended
  // From the same process: nothing has kept the directories.
  const { store, queue } = await createAdapters({ connections: { file: { dataDir } } })
  expect((await store.read('nq:flow:r1')).map(event => event.type)).toEqual(['flow.start', 'step.started', 'emit', 'step.completed'])
  expect((await queue.getJob('q', 'r1__a'))!.state).toBe('completed')
  expect((await queue.getJob('q', 'r1__b'))!.state).toBe('waiting')
})

it('a coordinator ends with its stream', async () => {
  const bus = createEventBus()
  const [stream, store] = [new MemoryStreamAdapter(), new MemoryStoreAdapter({ bus })]
  const coordinator = createStreamCoordinator({ bus, stream })
  await coordinator.start()
  await store.append('s', { type: 'flow.completed', runId: 'r', flowName: 'f' })
  await shutdownAdapters({ stream })
  const { routed, failed } = coordinator.stats()
  await store.append('s', { type: 'flow.completed', runId: 'r', flowName: 'f' })
  await store.read('s')
  expect(coordinator.stats()).toMatchObject({ routed, failed })
  expect(failed).toBe(0)
  await store.close()
})

it('ends queues, then wirings, then streams, then stores', async () => {
  const order: string[] = []
  const noting = <T extends object>(adapter: T, methods: Record<string, string>): T => new Proxy(adapter, {
    get: (target, name) => {
      const value: any = Reflect.get(target, name)
      if (!Object.hasOwn(methods, name)) return typeof value === 'function' ? value.bind(target) : value
      return async () => {
        order.push(methods[name as string]!)
        await value.call(target)
        await turn()
        order.push(`${methods[name as string]} has ended`)
      }
    },
  })
  setAdapters({
    queue: noting(new MemoryQueueAdapter(), { drain: 'queue drains', close: 'queue closes' }),
    stream: noting(new MemoryStreamAdapter(), { shutdown: 'stream' }),
    store: noting(new MemoryStoreAdapter(), { close: 'store' }),
  } as unknown as Adapters)
  const own = noting({ start: () => {}, stop: () => {} }, { stop: 'wiring' })
  const wiring = createWiringRegistry({ wirings: [own] })
  await wiring.start()
  await Promise.all([shutdown(), shutdown()])
  expect(order).toEqual(['queue drains', 'wiring', 'queue closes', 'stream', 'store'].flatMap(part => [part, `${part} has ended`]))
  await wiring.stop()
  expect(order).toHaveLength(10)
})

it('ends the adapters of a wiring that are not current', async () => {
  const store = new FileStoreAdapter({ dataDir })
  await createFlowWiring({ store, flows: [FLOW] }).start()
  await shutdown()
  await rejects(store.read('s'), 'NVENT_CLOSED')
})

it('calls no drain of a queue of the application, which may remove jobs', async () => {
  const calls: string[] = []
  const queue: any = Object.fromEntries(['init', 'enqueue', 'getJob', 'getJobs', 'on', 'registerWorker', 'startProcessingQueue', 'drain', 'close'].map(name => [name, async () => {
    calls.push(name)
  }]))
  await createAdapters({ store: { adapter: 'memory' }, queue })
  await shutdown()
  expect(calls).toEqual(['init', 'close'])
})

it('resolves where the application has closed the queue', async () => {
  const { queue, store } = await createAdapters({ connections: { file: { dataDir } } })
  const wiring = createWiringRegistry({ flow: { flows: [FLOW] } })
  await wiring.start()
  await queue.close()
  await shutdown()
  await rejects(store.read('s'), 'NVENT_CLOSED')
})

it('a handler that shuts down is not waited for until its own shutdown has ended', async () => {
  const { queue } = await createAdapters({ connections: { file: { dataDir } } })
  const [ended, warnings] = [gate(), [] as Error[]]
  const onWarning = (warning: Error): void => void warnings.push(warning)
  process.on('warning', onWarning)
  let ending: Promise<void> | undefined
  queue.registerWorker('q', 'a', async () => {
    ending = shutdown()
    ended.open()
  })
  await queue.enqueue('q', { name: 'a', data: {}, opts: { jobId: 'x' } })
  await ended.opened
  await ending
  await turn()
  process.off('warning', onWarning)
  expect(warnings).toEqual([])
  const again = await createAdapters({ connections: { file: { dataDir } } })
  expect((await again.queue.getJob('q', 'x'))!.state).toBe('completed')
})

it('leaves the adapters of a wiring alone that could not start', async () => {
  const store = new MemoryStoreAdapter()
  await rejects(createFlowWiring({ store, flows: () => [{ id: '', steps: {} }] }).start() as Promise<void>, 'NVENT_INVALID')
  await shutdown()
  expect(await store.read('s')).toEqual([])
  await store.close()
})

it('does nothing where nothing is in use, and the adapters are no longer current afterwards', async () => {
  await shutdown()
  await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  await shutdown()
  await rejects(() => useStoreAdapter(), 'NVENT_NOT_FOUND')
})
