/** Flow steps as jobs of a custom queue, and the parts of a registry on a custom stream and store. */
import { createEventBus, createFlowWiring, createWiringRegistry, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, setAdapters, startFlow } from 'nvent-native'
import type { EventBus, Flow, JobContext, QueueAdapter, StepContext, StoreAdapter, StreamAdapter, Wiring, WiringRegistryOptions } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { FlowRuntime } from '../lib/flow/runtime'
import { intercepted, outage, OwnQueue } from './support/own'
import { gate, nextWarning, rejects, until } from './support/until'

let bus: EventBus
let store: MemoryStoreAdapter
let queue: OwnQueue
const wirings: Array<Pick<Wiring, 'stop'>> = []

beforeEach(() => {
  bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  queue = new OwnQueue()
})
afterEach(async () => {
  for (const wiring of wirings.splice(0)) await wiring.stop()
  await store.close()
})

async function start(flows: Flow[] | object[], { flow, ...more }: Partial<WiringRegistryOptions> = {}): Promise<Wiring> {
  const wiring = createWiringRegistry({
    bus, store, queue: queue as unknown as QueueAdapter, stream: new MemoryStreamAdapter(), flow: { ...flow || {}, flows: flows as Flow[] }, ...more,
  })
  wirings.push(wiring)
  await wiring.start()
  return wiring
}

/** Returns a store with the same surface. `before` is called before each call. */
function own(before: (method: string, ...args: any[]) => void): StoreAdapter {
  return { stream: intercepted(store.stream, before), index: intercepted(store.index, before), kv: intercepted(store.kv, before) } as unknown as StoreAdapter
}

const run = (name: string, flowId: string, context?: Partial<JobContext>): Promise<unknown> =>
  queue.run(name, { id: `${flowId}__job`, name: '', data: { flowId, input: 'in' } }, context)
const logOf = async (run: string): Promise<string[]> => (await store.read(`nq:flow:${run}`)).map(({ type }) => type)

it('a step is a worker of its queue, with its concurrency, and every queue is started', async () => {
  await start([defineFlow('f', { a: { concurrency: 7, run: () => {} }, b: { subscribes: ['step:a'], queue: 'shared', run: () => {} }, c: { subscribes: ['step:a'], queue: 'shared', run: () => {} } })])
  expect(queue.workers).toEqual([['f.a', 'a', { concurrency: 7 }], ['shared', 'b', { concurrency: 1 }], ['shared', 'c', { concurrency: 1 }]])
  expect(queue.started).toEqual(['f.a', 'shared'])
})

it('steps of one name in one queue are refused where the wiring is made, and from a function when it starts', async () => {
  const flows = ['f', 'g'].map(id => defineFlow(id, { a: { queue: 'q', run: () => {} } }))
  const message = /^flows: the steps "a" of "f" and "g" share the queue "q"/
  await rejects(() => createFlowWiring({ bus, store, flows }), 'NVENT_INVALID', message)
  await rejects(() => createWiringRegistry({ bus, store, flow: { flows } }), 'NVENT_INVALID', message)
  const wiring = createFlowWiring({ bus, store, queue: queue as unknown as QueueAdapter, flows: () => flows })
  await rejects(() => wiring.start(), 'NVENT_INVALID', message)
})

it('one subscription carries cancellations, from the end of a start to a stop, however often it is started', async () => {
  const calls: unknown[] = []
  const { opened, open } = gate()
  const stream = {
    publish: async () => {},
    subscribe: async (topic: string, _handler: unknown, opts: object) => {
      await opened
      calls.push([topic, opts])
      return { unsubscribe: async () => {
        calls.push('unsubscribed')
        // As that of a stream that was shut down before.
        throw new Error('closed')
      } }
    },
  } as unknown as StreamAdapter
  let isStarted = false
  const starting = start([defineFlow('f', { a: { run: () => {} } })], { stream }).then((wiring) => {
    isStarted = true
    return wiring
  })
  await until('the step is a worker', () => queue.workers.length)
  for (let n = 0; n < 20; n++) await store.read('s')
  expect([isStarted, queue.started]).toEqual([false, []])
  open()
  const wiring = await starting
  await wiring.start()
  expect(calls).toEqual([['flow:event:*', { filter: 'flow.cancel' }]])
  expect(queue.workers).toHaveLength(1)
  await wiring.stop()
  expect(calls.slice(1)).toEqual(['unsubscribed'])
})

it('without a stream of its own a registry has cancellations carried by the current one', async () => {
  const topics: string[] = []
  const stream = { publish: async () => {}, subscribe: async (topic: string) => {
    topics.push(topic)
    return { unsubscribe: async () => {} }
  } } as unknown as StreamAdapter
  setAdapters({ stream })
  await start([defineFlow('f', { a: { run: () => {} } })], { stream: undefined })
  expect(topics).toEqual(['flow:event:*'])
})

it('the parts of a registry begin and end in their order: webhooks before triggers, the coordinator after what flows store at the end', async () => {
  // The store is not on the bus: flow wiring announces what it has stored.
  await store.close()
  store = new MemoryStoreAdapter({ bus: null })
  const consumers: string[] = []
  const { opened, open } = gate()
  const lastStops = gate()
  const slow = own(() => {})
  const stored = slow.stream.append
  Object.assign(slow, {
    consume: (name: string, ...rest: [any, any]) => {
      consumers.push(name)
      return store.consume(name, ...rest)
    },
    stream: { ...store.stream, append: async (...args: Parameters<typeof stored>) => {
      await opened
      return stored(...args)
    } },
  })
  const stream = new MemoryStreamAdapter()
  const topics: string[] = []
  await stream.subscribe('store-sync:*', (_, topic) => void topics.push(topic))
  const flow = defineFlow('f', { a: { run: () => {} } })
  const wiring = await start([flow], {
    store: slow, stream,
    triggers: [{ id: 't', on: { event: 'x' }, start: 'f' }], webhooks: [{ name: 'hook', types: 'x', url: 'https://example.com/' }],
    // It stops right before those that are built in.
    wirings: [{ start: () => {}, stop: () => lastStops.open() }],
  })
  expect(consumers).toEqual(['webhook:hook', 'trigger:t'])
  bus.publish({ type: 'flow.start', runId: 'r', flowName: 'f', data: {} })
  const stopping = wiring.stop()
  await lastStops.opened
  for (let n = 0; n < 50; n++) await store.read('s')
  open()
  await stopping
  await until('it is routed', () => topics.includes('store-sync:append:nq:flow:r'))
  const running: Set<unknown> = (globalThis as any)[Symbol.for('nvent-native.running')]
  expect(running.size).toBe(0)
})

it('triggers need flows to start', async () => {
  await rejects(() => createWiringRegistry({ bus, store, flow: false, triggers: [] }), 'NVENT_INVALID', /^triggers: start flows of this registry, and flow is false/)
})

it('a flow wiring that is started again registers nothing twice', async () => {
  const wiring = createFlowWiring({ bus, store, queue: queue as unknown as QueueAdapter, flows: [defineFlow('f', { a: { run: () => {} } })] })
  wirings.push(wiring)
  await Promise.all([wiring.start(), wiring.start()])
  expect([queue.workers.length, queue.started]).toEqual([1, ['f.a']])
})

it('flows without functions subscribe to nothing, and start no queue', async () => {
  const topics: string[] = []
  const stream = { publish: async () => {}, subscribe: async (topic: string) => void topics.push(topic) } as unknown as StreamAdapter
  await start([{ id: 'f', entry: { step: 'a', queue: 'q' }, steps: {} }], { stream })
  expect([topics, queue.workers, queue.started]).toEqual([[], [], []])
})

it('what ends the attempt of a job ends its step, and so does the cancellation of its run', async () => {
  const aborted: unknown[] = []
  const flow = defineFlow('f', { a: { run: (_, { signal }) => new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(void aborted.push(signal.reason.message)))
    controllers.shift()?.abort(new Error('it took too long'))
  }) } })
  const controllers = [new AbortController()]
  const runtimes: Set<FlowRuntime> = (globalThis as any)[Symbol.for('nvent-native.flow-runtimes')]
  await start([flow])
  for (const run of ['r1', 'r2']) await store.append(`nq:flow:${run}`, { type: 'flow.start', runId: run, flowName: 'f', data: {} })
  await run('f.a', 'r1', { signal: controllers[0]!.signal })
  const second = run('f.a', 'r2', { signal: new AbortController().signal })
  await until('it is at work', async () => (await logOf('r2')).includes('step.started'))
  for (const runtime of runtimes) runtime.abort('r2')
  await second
  expect(aborted).toEqual(['it took too long', 'the run was cancelled'])
})

it('a run is idle once its steps have ended, those of several attempts at a time', async () => {
  const gates = [gate(), gate()]
  const begun: number[] = []
  await start([defineFlow('f', { a: { run: () => gates[begun.push(1) - 1]!.opened } })])
  await store.append('nq:flow:r', { type: 'flow.start', runId: 'r', flowName: 'f', data: {} })
  const jobs = [run('f.a', 'r'), run('f.a', 'r')]
  await until('both are at work', () => begun.length === 2)
  const [runtime] = (globalThis as any)[Symbol.for('nvent-native.flow-runtimes')] as Set<FlowRuntime>
  let isIdle = false
  const idle = runtime!.idle('r').then(() => isIdle = true)
  gates[1]!.open()
  await jobs[1]
  for (let n = 0; n < 20; n++) await store.read('s')
  expect(isIdle).toBe(false)
  gates[0]!.open()
  await idle
  await runtime!.idle('r')
})

it('a step begins through an outage of the store, in the attempt of its job', async () => {
  const seen: unknown[] = []
  const flow = defineFlow('f', { a: { run: (input, { attempt }) => void seen.push(input, attempt) } })
  let failures = 2
  await start([flow], { store: own((method, subject, opts) => {
    // The step reads what happened, then, if there was nothing, whether there is a log at all.
    if (method === 'read' && subject === 'nq:flow:r' && (opts?.types || opts?.limit) && failures-- > 0) throw outage()
  }) })
  await store.append('nq:flow:r', { type: 'flow.start', runId: 'r', flowName: 'f', data: {} })
  await run('f.a', 'r')
  expect(seen).toEqual(['in', 1])
  expect(failures).toBeLessThan(0)
})

it('where the start of a run is no longer kept its steps go on; where there is no log, none does, nor its entry without a job', async () => {
  const calls: string[] = []
  const note = (_: unknown, { step }: StepContext): void => void calls.push(step)
  await start([defineFlow('f', { a: { run: note }, b: { subscribes: ['step:a'], run: note } })])
  await run('f.b', 'r')
  await run('f.a', 'r')
  expect([calls, await logOf('r')]).toEqual([[], []])
  await store.append('nq:flow:r', { type: 'log', runId: 'r', flowName: 'f', data: {} })
  await run('f.b', 'r')
  expect(calls).toEqual(['b'])
  await queue.enqueue('f.a', { name: 'a', data: {}, opts: { jobId: 'new__job' } })
  await run('f.a', 'new')
  expect(calls).toEqual(['b', 'a'])
})

it('names of flows and runs are text, whatever String.replace makes of them', async () => {
  const flow = defineFlow('$&-$1', { a: { run: () => {} } })
  const memory = new MemoryQueueAdapter()
  await start([flow], { queue: memory, flow: { subjects: { run: '{flowName}/{runId}', runIndex: 'of/{flowName}' } } })
  const started = await startFlow(flow, {}, { runId: '$$' })
  expect(await started.result()).toEqual({ status: 'completed' })
  expect((await store.read('$&-$1/$$')).map(({ type }) => type)).toEqual(['flow.start', 'step.started', 'step.completed', 'flow.completed'])
  await until('the index has it', async () => (await store.index.get('of/$&-$1', '$$'))?.metadata.status === 'completed')
  await memory.close()
})

it('the state of ended runs is looked for until the wiring stops; that it cannot be read is warned of', async () => {
  const sweeps = [0, 0]
  let fails = true
  const counting = (at: 0 | 1): StoreAdapter => own((method, key) => {
    if (method !== 'read' || key !== 'nq:flow-state') return
    sweeps[at]! += 1
    if (fails) throw new Error('no index')
  })
  const flow = [defineFlow('f', { a: { run: () => {} } })]
  const warned = nextWarning()
  const first = await start(flow, { store: counting(0), flow: { keepState: 0 } })
  expect(await warned).toMatchObject({ code: 'NVENT_HANDLER', detail: expect.stringContaining('no index') })
  fails = false
  await until('it goes on', () => sweeps[0]! > 2)
  await first.stop()
  const atEnd = sweeps[0]
  await start(flow, { store: counting(1), flow: { keepState: 0 } })
  await until('another has looked several times', () => sweeps[1]! > 3)
  expect(sweeps[0]).toBe(atEnd)
})
