/** Whole flows, and what a process pays in memory for what a store holds. */
import { createEventBus, createFlowWiring, MemoryQueueAdapter, MemoryStoreAdapter } from '../dist/index.mjs'
import { inFlight } from './harness.mjs'
import { copyByHand, JavaScriptStore } from './peers/memory.mjs'
import { event, newMetadata } from './samples.mjs'

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
  await flows(bench)
  await footprint(bench)
}

async function flows(bench) {
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus })
  const queue = new MemoryQueueAdapter({ defaultJobOptions: { removeOnComplete: true } })
  await queue.init()
  const wiring = createFlowWiring({ bus, store, queue, flows: [flow] })
  await wiring.start()
  for (let i = 0; i < STEPS; i++) {
    queue.registerWorker('work', step(i), async ({ data: { flowId: runId } }) => {
      const tell = (type, data) =>
        bus.publish({ type, runId, flowName: flow.id, stepName: step(i), stepId: `${runId}__${step(i)}__attempt-1`, attempt: 1, data })
      tell('step.started', {})
      tell('emit', { name: `done-${i}`, payload: { i } })
      tell('step.completed', { result: i })
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
    name: `a flow of ${STEPS} steps, ${RUNS} at once (per flow: 32 events stored, indexed and heard, ${STEPS} jobs run)`,
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

async function footprint(bench) {
  const n = 100_000 * bench.scale
  const stores = { 'native': () => new MemoryStoreAdapter({ bus: null }), 'JS, copies by hand': () => new JavaScriptStore({ copy: copyByHand }) }
  const taken = { rss: {}, heap: {} }
  for (const [name, create] of Object.entries(stores)) {
    globalThis.gc?.()
    const before = process.memoryUsage()
    const store = create()
    for (let i = 0; i < n; i++) {
      await store.append(`subject-${i >> 5}`, event(i))
      await store.indexAdd('index', `run-${i}`, i, newMetadata(i))
    }
    globalThis.gc?.()
    const after = process.memoryUsage()
    taken.rss[name] = (after.rss - before.rss) / 2 ** 20
    taken.heap[name] = (after.heapUsed - before.heapUsed) / 2 ** 20
    await store.close?.()
  }
  const what = 'that 100,000 events and 100,000 index entries in memory take'
  bench.note({ name: `V8 heap ${what}`, unit: 'MiB', figures: taken.heap })
  bench.note({ name: `resident memory ${what}`, unit: 'MiB', figures: taken.rss })
}
