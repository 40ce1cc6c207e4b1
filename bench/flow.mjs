/** Whole flows. */
import { createEventBus, createFlowWiring, MemoryQueueAdapter, MemoryStoreAdapter } from '../dist/index.mjs'
import { inFlight } from './harness.mjs'

const STEPS = 10
const RUNS = 100

const step = i => `step-${String(i).padStart(2, '0')}`
const flow = {
  id: 'chain',
  entry: { step: step(0), queue: 'work', emits: ['done-0'] },
  steps: Object.fromEntries(Array.from({ length: STEPS - 1 }, (_, i) =>
    [step(i + 1), { queue: 'work', subscribes: [`done-${i}`], emits: [`done-${i + 1}`] }])),
}

export default async function (bench) {
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus })
  const queue = new MemoryQueueAdapter({ defaultJobOptions: { removeOnComplete: true } })
  await queue.init()
  const wiring = createFlowWiring({ bus, store, queue, flows: [flow] })
  await wiring.start()
  for (let i = 0; i < STEPS; i++) {
    queue.registerWorker('work', step(i), async ({ data: { flowId: runId } }) => {
      const publish = (type, data) =>
        bus.publish({ type, runId, flowName: flow.id, stepName: step(i), stepId: `${runId}__${step(i)}__attempt-1`, attempt: 1, data })
      publish('step.started', {})
      publish('emit', { name: `done-${i}`, payload: { i } })
      publish('step.completed', { result: i })
    }, { concurrency: 16 })
  }
  queue.startProcessingQueue('work')

  let missing = 0
  let allEnded
  bus.onType('flow.completed', ({ id }) => {
    if (id && --missing === 0) allEnded()
  })
  let run = 0
  await bench.row({
    name: `a flow of ${STEPS} steps, ${RUNS} at once (per flow: 32 events stored, indexed and delivered, ${STEPS} jobs run)`,
    ops: RUNS,
    contenders: {
      native: async (n) => {
        const all = new Promise(resolve => allEnded = resolve)
        missing = n
        await inFlight(n, n, async () => {
          const runId = `run-${run++}`
          bus.publish({ type: 'flow.start', runId, flowName: flow.id, data: {} })
          await queue.enqueue('work', { name: step(0), data: { flowId: runId, flowName: flow.id, input: {} }, opts: { jobId: `${runId}__${step(0)}` } })
        })
        await all
      },
    },
  })
  await wiring.stop()
  await queue.close()
  await store.close()
}
