import { createEventBus, createFlowWiring, MemoryStoreAdapter } from 'nvent-native'
import type { EventBus, EventRecord, FlowDefinition, QueueAdapter, Wiring } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { rejects, until } from './support/until'

const ORDER: FlowDefinition = {
  id: 'order',
  entry: { step: 'check', emits: ['order.checked'] },
  steps: {
    pay: { subscribes: ['order.checked'], emits: ['order.paid'], queue: 'money' },
    pack: { subscribes: ['order.checked'], emits: ['order.packed'] },
    ship: { subscribes: ['order.paid', 'order.packed'] },
  },
}

interface Enqueued { queue: string, name: string, data: any, opts: any }

/** A queue that only notes what is enqueued, each id once. */
class Jobs {
  readonly all: Enqueued[] = []
  readonly worked = new Set<string>()
  calls = 0
  enqueue = async (queue: string, job: { name: string, data: any, opts?: any }): Promise<string> => {
    this.calls += 1
    if (!this.all.some(other => other.opts.jobId === job.opts.jobId)) this.all.push({ queue, ...job, opts: job.opts })
    return job.opts.jobId
  }

  get ids(): string[] { return this.all.map(job => job.opts.jobId) }
}

let bus: EventBus
let store: MemoryStoreAdapter
let jobs: Jobs
let wiring: Wiring
let received: EventRecord[]

const wire = (flows: FlowDefinition[] | (() => FlowDefinition[]) = [ORDER], more = {}): Wiring =>
  createFlowWiring({ bus, store, queue: jobs as unknown as QueueAdapter, flows, ...more })

beforeEach(async () => {
  bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  jobs = new Jobs()
  received = []
  bus.onType('*', event => event.id && received.push(event))
  wiring = wire()
  await wiring.start()
})
afterEach(async () => {
  await wiring.stop()
  await store.close()
})

const publish = (type: string, runId: string, more = {}): void => bus.publish({ type, runId, flowName: 'order', ...more })
const emits: Record<string, string | undefined> = { check: 'order.checked', pay: 'order.paid', pack: 'order.packed' }

/** What a worker publishes: it started, what it emitted, it is done. */
function work(runId: string, stepName: string): void {
  publish('step.started', runId, { stepName, attempt: 1, stepId: `${runId}__${stepName}__attempt-1` })
  const name = emits[stepName]
  if (name) publish('emit', runId, { stepName, data: { name, payload: { by: stepName } } })
  publish('step.completed', runId, { stepName, data: { result: null } })
}
const begin = (runId: string): void => {
  publish('flow.start', runId, { data: { input: {} } })
  work(runId, 'check')
}
const enqueued = (...ids: string[]): Promise<unknown> => until(`${ids} are enqueued`, () => ids.every(id => jobs.ids.includes(id)))
const entry = async (runId: string): Promise<any> => (await store.index.get('nq:flows:order', runId))?.metadata
const status = (runId: string, wanted: string): Promise<unknown> => until(`${runId} is ${wanted}`, async () => (await entry(runId))?.status === wanted)
const types = async (runId: string): Promise<string[]> => (await store.read(`nq:flow:${runId}`)).map(event => event.type)
/** A worker of the queue. */
async function worker(untilDone: () => boolean | Promise<boolean>): Promise<void> {
  await until('all work is done', async () => {
    for (const job of jobs.all) {
      if (jobs.worked.has(job.opts.jobId)) continue
      jobs.worked.add(job.opts.jobId)
      work(job.data.flowId, job.name)
    }
    return untilDone()
  }, 30_000)
}

it('takes an order through fan-out and join to its end', async () => {
  begin('r1')
  await enqueued('r1__pay', 'r1__pack')
  expect(jobs.all).toEqual([
    { queue: 'money', name: 'pay', data: { flowId: 'r1', flowName: 'order', input: { 'order.checked': { by: 'check' } } }, opts: { jobId: 'r1__pay' } },
    { queue: 'pack', name: 'pack', data: { flowId: 'r1', flowName: 'order', input: { 'order.checked': { by: 'check' } } }, opts: { jobId: 'r1__pack' } },
  ])
  work('r1', 'pack')
  await until('pack is persisted', async () => (await types('r1')).filter(type => type === 'step.completed').length === 2)
  expect(jobs.ids).not.toContain('r1__ship')
  work('r1', 'pay')
  await enqueued('r1__ship')
  expect(jobs.all[2]!.data.input).toEqual({ 'order.paid': { by: 'pay' }, 'order.packed': { by: 'pack' } })
  work('r1', 'ship')
  await status('r1', 'completed')
  const [started] = await store.read('nq:flow:r1', { types: ['flow.start'] })
  const [completed] = await store.read('nq:flow:r1', { types: ['flow.completed'] })
  expect(await entry('r1')).toMatchObject({
    status: 'completed', flowName: 'order', startedAt: started!.ts, completedAt: completed!.ts, stepCount: 4, completedSteps: 4,
    emittedEvents: { order: { checked: expect.any(Number), paid: expect.any(Number), packed: expect.any(Number) } },
  })
  expect((await store.index.read('nq:flows:order', { filter: { status: 'completed' } })).map(one => one.id)).toEqual(['r1'])
})

it('persists each ingress event once, and announces each persisted one once', async () => {
  begin('r1')
  await enqueued('r1__pay', 'r1__pack')
  await worker(async () => (await entry('r1'))?.status === 'completed')
  const persisted = await store.read('nq:flow:r1')
  await until('all of them are received', () => received.length >= persisted.length)
  expect(received).toEqual(persisted)
  expect(persisted.map(event => event.type)).toEqual([...new Set(persisted)].map(event => event.type))
  const count = (type: string): number => persisted.filter(event => event.type === type).length
  expect(['flow.start', 'step.completed', 'emit', 'flow.completed'].map(count)).toEqual([1, 4, 3, 1])
})

it('leaves alone what has no run, and what is persisted already', async () => {
  bus.publish({ type: 'note' })
  await store.append('elsewhere', { type: 'note' })
  begin('r1')
  await enqueued('r1__pay')
  expect(received.filter(event => event.type === 'note')).toHaveLength(1)
  expect(await store.read('elsewhere')).toHaveLength(1)
})

it('counts what an application appends itself', async () => {
  await store.append('nq:flow:r1', { type: 'flow.start', runId: 'r1', flowName: 'order' })
  await store.append('nq:flow:r1', { type: 'emit', runId: 'r1', flowName: 'order', stepName: 'check', data: { name: 'order.checked', payload: 1 } })
  await store.append('nq:flow:r1', { type: 'step.completed', runId: 'r1', flowName: 'order', stepName: 'check' })
  await enqueued('r1__pay', 'r1__pack')
  expect((await types('r1')).filter(type => type === 'step.completed')).toHaveLength(1)
})

it('does not take a failure that is retried for one', async () => {
  begin('r1')
  await enqueued('r1__pay', 'r1__pack')
  publish('step.started', 'r1', { stepName: 'pay', attempt: 1 })
  publish('step.failed', 'r1', { stepName: 'pay', attempt: 1, data: { error: 'card declined' } })
  publish('step.retry', 'r1', { stepName: 'pay', attempt: 2 })
  work('r1', 'pay')
  work('r1', 'pack')
  await enqueued('r1__ship')
  work('r1', 'ship')
  await status('r1', 'completed')
  expect(await types('r1')).not.toContain('flow.failed')
})

it('fails a run whose failed step blocks others, once', async () => {
  begin('r1')
  await enqueued('r1__pay', 'r1__pack')
  work('r1', 'pack')
  publish('step.started', 'r1', { stepName: 'pay' })
  publish('step.failed', 'r1', { stepName: 'pay', data: { error: 'card declined' } })
  await status('r1', 'failed')
  expect((await types('r1')).filter(type => type === 'flow.failed')).toHaveLength(1)
  expect(await entry('r1')).toMatchObject({ status: 'failed', completedSteps: 2 })
  expect(jobs.ids).not.toContain('r1__ship')
})

it('triggers nothing more in a canceled run', async () => {
  publish('flow.start', 'r1')
  publish('flow.cancel', 'r1')
  work('r1', 'check')
  begin('r2')
  await enqueued('r2__pay', 'r2__pack')
  await status('r1', 'canceled')
  expect(jobs.ids.filter(id => id.startsWith('r1'))).toEqual([])
  expect(await types('r1')).not.toContain('flow.completed')
})

it('triggers on the completion of a step', async () => {
  await wiring.stop()
  wiring = wire([{ id: 'order', entry: { step: 'check' }, steps: { next: { subscribes: ['step:check'] } } }])
  await wiring.start()
  publish('flow.start', 'r1')
  publish('step.started', 'r1', { stepName: 'check' })
  publish('step.completed', 'r1', { stepName: 'check' })
  await enqueued('r1__next')
})

it('takes 200 interleaved runs to their ends, each step and each end exactly once', async () => {
  const runs = Array.from({ length: 200 }, (_, n) => `run-${n}`)
  for (const run of runs) publish('flow.start', run)
  for (const run of runs) work(run, 'check')
  await worker(async () => received.filter(event => event.type === 'flow.completed').length >= 200)
  await until('the index says so', async () => (await store.index.read('nq:flows:order', { limit: 1_000, filter: { status: 'completed' } })).length === 200)
  expect(jobs.all).toHaveLength(600)
  expect(new Set(received.map(event => `${event.runId} ${event.id}`)).size).toBe(received.length)
  for (const run of runs) {
    const calls = await types(run)
    expect(calls.filter(type => type === 'flow.completed')).toHaveLength(1)
    expect(calls.filter(type => type === 'step.completed')).toHaveLength(4)
    expect(calls.at(-1)).toBe('flow.completed')
  }
}, 60_000)

it('takes up after a restart what was under way', async () => {
  begin('r1')
  await enqueued('r1__pay', 'r1__pack')
  await wiring.stop()
  await store.append('nq:flow:r1', { type: 'step.started', runId: 'r1', flowName: 'order', stepName: 'pay' })
  for (const [stepName, name] of [['pay', 'order.paid'], ['pack', 'order.packed']]) {
    await store.append('nq:flow:r1', { type: 'emit', runId: 'r1', flowName: 'order', stepName, data: { name, payload: 1 } })
    await store.append('nq:flow:r1', { type: 'step.completed', runId: 'r1', flowName: 'order', stepName })
  }
  wiring = wire()
  await wiring.start()
  await enqueued('r1__ship')
  work('r1', 'ship')
  await status('r1', 'completed')
  expect((await types('r1')).filter(type => type === 'flow.completed')).toHaveLength(1)
})

it('agrees with another wiring on the same store on one end', async () => {
  const second = wire()
  await second.start()
  await store.append('nq:flow:r1', { type: 'flow.start', runId: 'r1', flowName: 'order' })
  for (const stepName of ['check', 'pay', 'pack', 'ship']) {
    const name = emits[stepName]
    await store.append('nq:flow:r1', { type: 'step.started', runId: 'r1', flowName: 'order', stepName })
    if (name) await store.append('nq:flow:r1', { type: 'emit', runId: 'r1', flowName: 'order', stepName, data: { name } })
    await store.append('nq:flow:r1', { type: 'step.completed', runId: 'r1', flowName: 'order', stepName })
  }
  await status('r1', 'completed')
  await second.stop()
  await wiring.stop()
  expect((await types('r1')).filter(type => type === 'flow.completed')).toHaveLength(1)
})

it('uses flows that a function returns, and subjects of one\'s own', async () => {
  await wiring.stop()
  wiring = wire(() => [ORDER], { subjects: { run: 'app:flow:run:{runId}', runIndex: 'app:flow:runs:{flowName}' } })
  await wiring.start()
  begin('r1')
  await enqueued('r1__pay')
  expect((await store.read('app:flow:run:r1'))[0]).toMatchObject({ type: 'flow.start' })
  await until('the index entry', () => store.index.get('app:flow:runs:order', 'r1'))
  expect(await store.read('nq:flow:r1')).toEqual([])
})

it('works with a queue that fails for a while', async () => {
  const { enqueue } = jobs
  let failures = 2
  jobs.enqueue = async (...args) => {
    if (failures-- > 0) throw new Error('the queue is away')
    return enqueue(...args)
  }
  begin('r1')
  await until('the queue was asked', () => failures <= 0)
  work('r1', 'note')
  await enqueued('r1__pay', 'r1__pack')
})

it('works on a store of one\'s own, over either surface', async () => {
  for (const own of [
    { stream: store.stream, index: store.index },
    { append: store.append.bind(store), read: store.read.bind(store), indexAdd: store.indexAdd.bind(store), indexUpdate: store.indexUpdate.bind(store), indexRead: store.indexRead.bind(store) },
  ]) {
    await wiring.stop()
    wiring = wire([ORDER], { store: own })
    await wiring.start()
    const run = `own-${'append' in own}`
    begin(run)
    await enqueued(`${run}__pay`, `${run}__pack`)
    expect((await types(run)).filter(type => type === 'flow.start')).toHaveLength(1)
  }
})

it.each<[string, any, RegExp]>([
  ['a misspelt option', { flow: [] }, /flow.*flows/],
  ['flows that are none', { flows: 'order' }, /flows/],
  ['a flow without id', { flows: [{ steps: {} }] }, /flows\[0\]/],
  ['a flow that is there twice', { flows: [ORDER, ORDER] }, /flows\[1\]/],
  ['subscriptions that are no list', { flows: [{ id: 'a', steps: { x: { subscribes: 'y' } } }] }, /flows\[0\]\.steps\.x/],
  ['a run subject without a place for the run', { subjects: { run: 'fixed' } }, /run/],
  ['a queue that is none', { queue: {} }, /queue.*enqueue/],
])('refuses %s', async (_what, opts, message) => {
  await rejects(() => createFlowWiring({ bus, store, ...opts }), 'NVENT_INVALID', message)
})
