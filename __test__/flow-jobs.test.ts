import { createEventBus, createFlowWiring, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, setAdapters, startFlow } from 'nvent-native'
import type { EventBus, EventRecord, FlowDefinition, FlowWiring, QueueAdapter, StoreAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { gate, until } from './support/until'

// The log of a run and the jobs of its steps: neither says something that the other does not know.

const FLOW: FlowDefinition = { id: 'f', entry: { step: 'a', queue: 'q', emits: ['x'] }, steps: { b: { subscribes: ['x'], queue: 'q' } } }

let bus: EventBus
let store: MemoryStoreAdapter
let queue: MemoryQueueAdapter
let wiring: FlowWiring | undefined

beforeEach(() => {
  bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  queue = new MemoryQueueAdapter()
})
afterEach(async () => {
  await queue.close()
  await wiring?.stop()
  wiring = undefined
  await store.close()
})

const start = async (more: { store?: StoreAdapter, queue?: QueueAdapter } = {}): Promise<void> => {
  wiring = createFlowWiring({ bus, store, queue, flows: [FLOW], ...more })
  await wiring.start()
}
const enqueue = (runId: string, opts = {}): Promise<string> =>
  queue.enqueue('q', { name: 'a', data: { flowId: runId, flowName: 'f', input: {} }, opts: { jobId: `${runId}__a`, ...opts } })
/** Registers both steps as workers; `events` are those that a handler publishes. */
function work(handler: (job: any, publish: (type: string, data?: object) => void) => unknown): void {
  for (const name of ['a', 'b']) {
    queue.registerWorker('q', name, async (job) => {
      const { flowId: runId, flowName } = job.data
      return handler(job, (type, data = {}) => bus.publish({ type, runId, flowName, stepName: name, data }))
    })
  }
  queue.startProcessingQueue('q')
}
const log = (runId: string): Promise<EventRecord[]> => store.read(`nq:flow:${runId}`)
const ended = (runId: string): Promise<EventRecord> => until(`${runId} has ended`, async () =>
  (await log(runId)).find(event => event.type === 'flow.completed' || event.type === 'flow.failed'))

it('ends a job only after the events of its handler have been stored', async () => {
  const stored = gate()
  const slow = {
    append: async (subject: string, event: any) => {
      await stored.opened
      return store.append(subject, event)
    },
    read: store.read.bind(store),
    indexAdd: store.indexAdd.bind(store),
    indexUpdate: store.indexUpdate.bind(store),
    indexRead: store.indexRead.bind(store),
  }
  await start({ store: slow as unknown as StoreAdapter })
  const settled = gate()
  work((job, publish) => {
    publish('step.completed')
    settled.open()
  })
  await enqueue('r1')
  await settled.opened
  // Whatever the handler's end sets off has had its turn.
  for (let n = 0; n < 20; n++) expect((await queue.getJob('q', 'r1__a'))!.state).toBe('active')
  stored.open()
  await until('the job is completed', async () => (await queue.getJob('q', 'r1__a'))?.state === 'completed')
  expect((await log('r1')).map(event => event.type)).toContain('step.completed')
})

it.each([[{}], [{ removeOnFail: true }]])('fails a run whose job failed for good without an event of its handler, with job options %j', async (opts) => {
  await start()
  work((job, publish) => {
    publish('step.started')
    throw new Error('out of paper')
  })
  bus.publish({ type: 'flow.start', runId: 'r1', flowName: 'f' })
  await enqueue('r1', { attempts: 2, backoff: 1, ...opts })
  expect(await ended('r1')).toMatchObject({ type: 'flow.failed', data: { stepName: 'a', error: 'out of paper' } })
  const failures = (await log('r1')).filter(event => event.type === 'step.failed')
  expect(failures).toMatchObject([{ stepName: 'a', data: { error: 'out of paper', willRetry: false } }])
})

it('adds nothing where the handler has published its failure', async () => {
  await start()
  work((job, publish) => {
    publish('step.failed', { error: 'mine' })
    throw new Error('out of paper')
  })
  bus.publish({ type: 'flow.start', runId: 'r1', flowName: 'f' })
  await enqueue('r1')
  expect(await ended('r1')).toMatchObject({ type: 'flow.failed', data: { error: 'mine' } })
  expect((await log('r1')).map(event => event.type)).toEqual(['flow.start', 'step.failed', 'flow.failed'])
})

it('fails a run whose job failed for good in a queue of the application', async () => {
  const listeners: Array<(payload: any) => void> = []
  const foreign = {
    enqueue: queue.enqueue.bind(queue),
    getJob: async () => ({ id: 'r1__a', name: 'a', data: { flowId: 'r1', flowName: 'f' }, state: 'failed', failedReason: 'gone' }),
    getJobs: async () => [],
    on: (name: string, event: string, listener: (payload: any) => void) => {
      listeners.push(listener)
      return () => void listeners.splice(listeners.indexOf(listener), 1)
    },
  }
  await start({ queue: foreign as unknown as QueueAdapter })
  bus.publish({ type: 'flow.start', runId: 'r1', flowName: 'f' })
  await until('the run is stored', async () => (await log('r1')).length > 0)
  expect(listeners).toHaveLength(1)
  listeners[0]!({ jobId: 'r1__a', name: 'a', failedReason: 'gone' })
  expect(await ended('r1')).toMatchObject({ type: 'flow.failed', data: { error: 'gone' } })
  await wiring!.stop()
  expect(listeners).toHaveLength(0)
})

/** What a process leaves behind that is killed after the job has ended and before its events are stored. */
async function leaveBehind(runId: string, indexed: boolean): Promise<void> {
  await store.append(`nq:flow:${runId}`, { type: 'flow.start', runId, flowName: 'f' })
  if (indexed) await store.index.add('nq:flows:f', runId, 1, { status: 'running' })
  await enqueue(runId)
  await until('its job has ended', async () => ['completed', 'failed'].includes((await queue.getJob('q', `${runId}__a`))!.state))
}

it.each([[true], [false]])('runs a step once more whose job has completed without its events, in the index: %s', async (indexed) => {
  const lost = new Set(['r1__a'])
  work((job, publish) => {
    if (lost.has(job.id)) return
    if (job.name === 'a') publish('emit', { name: 'x', payload: 1 })
    publish('step.completed')
  })
  await leaveBehind('r1', indexed)
  await start()
  expect(await ended('r1')).toMatchObject({ type: 'flow.completed' })
  const jobs = await queue.getJobs('q')
  expect(jobs.map(job => job.id).sort()).toEqual(['r1__a', 'r1__a__recovered', 'r1__b'])
  expect(wiring!.stats().recovered).toBe(1)
})

it('completes a step whose handler publishes nothing, after it has run once more', async () => {
  const calls: string[] = []
  work(job => void calls.push(job.id))
  await leaveBehind('r1', true)
  await start()
  await until('the step has run once more', async () => (await queue.getJob('q', 'r1__a__recovered'))?.state === 'completed')
  await wiring!.stop()
  await start()
  expect(await ended('r1')).toMatchObject({ type: 'flow.completed' })
  expect(calls).toEqual(['r1__a', 'r1__a__recovered'])
  expect((await log('r1')).at(-2)).toMatchObject({ type: 'step.completed', stepName: 'a', data: { recovered: true } })
})

it('fails a step whose job failed while no wiring was there', async () => {
  work(() => {
    throw new Error('out of paper')
  })
  await leaveBehind('r1', true)
  await start()
  expect(await ended('r1')).toMatchObject({ type: 'flow.failed', data: { stepName: 'a', error: 'out of paper' } })
})

it('starts nothing for the jobs of a run whose log is empty', async () => {
  work(() => {})
  await leaveBehind('r1', true)
  await store.stream.delete('nq:flow:r1')
  await store.index.delete('nq:flows:f', 'r1')
  await start()
  await enqueue('r2')
  await until('another run is through', async () => (await queue.getJob('q', 'r2__a'))?.state === 'completed')
  await wiring!.stop()
  expect(await log('r1')).toEqual([])
  expect(await store.index.get('nq:flows:f', 'r1')).toBe(null)
})

it('a flow as data is started by its id: its entry is enqueued as a job', async () => {
  await start()
  expect(await startFlow('f', { n: 1 }, { runId: 'r1' })).toMatchObject({ runId: 'r1', created: true })
  expect(await queue.getJob('q', 'r1__a')).toMatchObject({ name: 'a', state: 'waiting', data: { flowId: 'r1', flowName: 'f', input: { n: 1 } } })
})

it.each<[string[], string | undefined]>([
  [[], 'waiting'],
  [['step.started'], 'waiting'],
  [['step.started', 'step.failed'], undefined],
  [['step.started', 'step.completed'], undefined],
  [['flow.cancel'], undefined],
])('without flow wiring, a start under the id of a run enqueues an entry whose job is missing; its log after the start: %j', async (types, state) => {
  setAdapters({ store, queue })
  await store.append('nq:flow:r1', { type: 'flow.start', runId: 'r1', flowName: 'alone', data: { input: { n: 1 } } })
  for (const type of types) await store.append('nq:flow:r1', { type, runId: 'r1', flowName: 'alone', ...type.startsWith('step') ? { stepName: 'only' } : {} })
  const flow = defineFlow('alone', { only: { run: () => {} } })
  expect(await startFlow(flow, { n: 2 }, { runId: 'r1' })).toMatchObject({ created: false })
  const job = await queue.getJob('alone.only', 'r1__only')
  expect([job?.state, job?.data.input]).toEqual([state, state && { n: 1 }])
})

it('a failure in a queue that does not count attempts is the last one', async () => {
  let handler: ((job: any) => Promise<unknown>) | undefined
  const foreign = {
    enqueue: async () => 'id',
    registerWorker: (_queue: string, _name: string, work: typeof handler) => void (handler = work),
    startProcessingQueue: () => {},
  }
  const flow = defineFlow('alone', { only: { run: () => {
    throw new Error('out of paper')
  } } })
  wiring = createFlowWiring({ bus, store, queue: foreign as unknown as QueueAdapter, flows: [flow] })
  await wiring.start()
  await startFlow(flow, {}, { runId: 'r1' })
  await expect(handler!({ id: 'id', name: 'only', data: { flowId: 'r1', input: {} } })).rejects.toThrow('out of paper')
  expect((await log('r1')).filter(({ type }) => type.startsWith('step.'))).toMatchObject([{ type: 'step.started' }, { type: 'step.failed', data: { willRetry: false } }])
  expect(await ended('r1')).toMatchObject({ type: 'flow.failed' })
})

it.each(['completed', 'failed'])('takes up a run that is in no index, by its job in a queue of the application, which has %s', async (state) => {
  const enqueued: any[] = []
  const queries: unknown[] = []
  const foreign = {
    enqueue: async (_: string, job: any) => {
      enqueued.push(job)
      return job.opts.jobId
    },
    getJob: async () => null,
    // As BullMQ's job: its state is a call, and it has fields without JSON.
    getJobs: async (...query: unknown[]) => {
      queries.push(query)
      return [{ id: 7, name: 'a', data: { flowId: 'r1', flowName: 'f' }, getState: async () => state, queue: 1n }, undefined]
    },
  }
  for (const [type, data] of [['flow.start', {}], ['step.started', {}], ['emit', { name: 'x' }], ['step.completed', {}]] as const) {
    await store.append('nq:flow:r1', { type, runId: 'r1', flowName: 'f', data, ...type === 'flow.start' ? {} : { stepName: 'a' } })
  }
  await start({ queue: foreign as unknown as QueueAdapter })
  await until('its next step is enqueued', () => enqueued.length > 0)
  expect(enqueued).toMatchObject([{ name: 'b', data: { flowId: 'r1' } }])
  expect(queries).toEqual([['q', { state: ['completed', 'failed'], limit: 10_000 }]])
})

it('a queue of the application that only enqueues has no jobs to look at', async () => {
  const enqueued: any[] = []
  const enqueue = async (_: string, job: any): Promise<string> => {
    enqueued.push(job)
    return job.opts.jobId
  }
  await start({ queue: { enqueue } as unknown as QueueAdapter })
  bus.publish({ type: 'flow.start', runId: 'r1', flowName: 'f' })
  bus.publish({ type: 'emit', runId: 'r1', flowName: 'f', stepName: 'a', data: { name: 'x' } })
  await until('its next step is enqueued', () => enqueued.some(({ name }) => name === 'b'))
  expect(wiring!.stats().errors).toBe(0)
})
