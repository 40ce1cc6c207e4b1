import { createAdapters, createWiringRegistry, defineFlow, listFlows, MemoryStoreAdapter, runState, shutdown, startFlow } from 'nvent-native'
import { afterEach, expect, test } from 'vitest'

afterEach(() => shutdown())

const order = defineFlow('order', {
  validate: { emits: ['valid'], run: (_, step) => step.emit('valid', { total: 7 }) },
  charge: { subscribes: ['valid'], run: () => { throw new Error('declined') } },
  ship: { subscribes: ['step:charge', 'valid'], run: () => {} },
})

test('the state of a run at every event of its log', async () => {
  const { store } = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  await createWiringRegistry({ flow: { flows: [order] } }).start()
  const run = await startFlow(order, { items: 3 }, { runId: 'r' })
  expect(await run.result()).toEqual({ status: 'failed', error: 'declined' })

  const log = await store.stream.read('nq:flow:r')
  const at = async (type: string, step?: string) => runState('order', 'r', { until: log.find(event => event.type === type && (!step || event.stepName === step))!.id })
  const start = await at('flow.start')
  expect(start).toMatchObject({ status: 'running', input: { items: 3 }, stepCount: 3, completedSteps: 0, retries: 0, emits: {} })
  expect(start.steps).toEqual({
    validate: { state: 'enqueued' },
    charge: { state: 'waiting', unmet: ['valid'] },
    ship: { state: 'waiting', unmet: ['step:charge', 'valid'] },
  })
  expect((await at('step.started', 'validate')).steps['validate']).toEqual({ state: 'active' })
  const emitted = await at('emit')
  expect(emitted.emits['valid']!.payload).toEqual({ total: 7 })
  expect(emitted.steps['charge']).toEqual({ state: 'enqueued' })
  expect((await at('step.failed')).status).toBe('running')
  const end = await runState('order', 'r')
  expect(end).toMatchObject({ status: 'failed', error: 'declined', completedSteps: 1 })
  expect(end.steps).toMatchObject({ charge: { state: 'failed', error: 'declined' }, ship: { state: 'waiting', unmet: ['step:charge'] } })
  expect((await runState('order', 'r', { until: '1-0' })).steps['validate']).toEqual({ state: 'waiting', unmet: [] })
})

test('without a definition it has the steps of the log; wrong arguments are named', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  await store.append('elsewhere', { type: 'step.started', stepName: 'a', runId: 'r' })
  expect((await runState('unknown', 'r', { store, subject: 'elsewhere' })).steps).toEqual({ a: { state: 'active' } })
  await expect(runState(1 as any, 'r')).rejects.toMatchObject({ code: 'NVENT_INVALID' })
  await expect(runState('f', 1 as any)).rejects.toMatchObject({ code: 'NVENT_INVALID', message: expect.stringContaining('runId') })
  await expect(runState('f', 'r', { untill: 'x' } as any)).rejects.toMatchObject({ code: 'NVENT_INVALID', message: expect.stringContaining('untill') })
  await store.close()
})

test('lists the flows of running registries', async () => {
  expect(listFlows()).toEqual([])
  await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  await createWiringRegistry({ flow: { flows: [order], subjects: { runIndex: 'runs:{flowName}' } } }).start()
  expect(listFlows()).toEqual([{
    id: 'order',
    runIndex: 'runs:order',
    runSubject: 'nq:flow:{runId}',
    steps: [
      { name: 'validate', queue: 'order.validate', subscribes: [], emits: ['valid'] },
      { name: 'charge', queue: 'order.charge', subscribes: ['valid'], emits: [] },
      { name: 'ship', queue: 'order.ship', subscribes: ['step:charge', 'valid'], emits: [] },
    ],
  }])
})

test('a flow as data is listed with what it leaves out, and the state of its runs is read from where the registry keeps them', async () => {
  const { store } = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
  const plain = { id: 'plain', entry: { step: 'a' }, steps: { b: { subscribes: ['step:a'] }, c: { queue: 'own' } } }
  await createWiringRegistry({ flow: { flows: [plain], subjects: { run: 'runs:{flowName}:{runId}' } } }).start()
  expect(listFlows()).toEqual([{
    id: 'plain',
    runIndex: 'nq:flows:plain',
    runSubject: 'runs:plain:{runId}',
    steps: [
      { name: 'a', queue: 'a', subscribes: [], emits: [] },
      { name: 'b', queue: 'b', subscribes: ['step:a'], emits: [] },
      { name: 'c', queue: 'own', subscribes: [], emits: [] },
    ],
  }])
  await store.append('runs:plain:r', { type: 'step.started', stepName: 'a', runId: 'r', flowName: 'plain' })
  expect((await runState('plain', 'r')).steps).toEqual({ a: { state: 'active' }, b: { state: 'waiting', unmet: ['step:a'] }, c: { state: 'waiting', unmet: [] } })
})
