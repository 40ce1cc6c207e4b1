/** Whole flows: a chain of ten steps, a hundred at once. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  createEventBus, createFlowWiring, FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter,
} from '../dist/index.mjs'
import { startRedis } from '../examples/redis-server.mjs'
import { inFlight } from './harness.mjs'
import { event } from './samples.mjs'

const STEPS = 10
const RUNS = 100
const WORK = `a flow of ${STEPS} steps, ${RUNS} at once`
const FLOOR = 'JSON both ways of an event, 100 times'
const FLOW_WHY = 'by the profile there is no single place: of the main thread\'s time for a step a third is publishing its three events (JSON, a native call each, the crossing), a fifth taking and ending its job, a sixth allocation; the rest is promises, whose hooks Node 20 calls for the context that records what a job has caused'
const BULLMQ = 'BullMQ, FlowProducer'

const step = i => `step-${String(i).padStart(2, '0')}`
const flow = {
  id: 'chain',
  entry: { step: step(0), queue: 'work', emits: ['done-0'] },
  steps: Object.fromEntries(Array.from({ length: STEPS - 1 }, (_, i) =>
    [step(i + 1), { queue: 'work', subscribes: [`done-${i}`], emits: [`done-${i + 1}`] }])),
}
const done = { removeOnComplete: true }
const floor = (n) => {
  for (let i = 0; i < n * 100; i++) JSON.parse(JSON.stringify(event(i)))
}

export default async function (bench) {
  const memory = await natively(bus => new MemoryStoreAdapter({ bus }), () => new MemoryQueueAdapter({ defaultJobOptions: done }))
  await bench.row({
    name: `${WORK}, in memory (per flow: 32 events stored, indexed and delivered, ${STEPS} jobs run)`,
    ops: 4 * RUNS,
    contenders: { native: inWaves(memory.run), [FLOOR]: floor },
    cpuTargets: { [FLOOR]: 1 },
    why: FLOW_WHY,
  })
  await memory.close()
  // A run without packages and servers ends here.
  if (bench.scale < 1) return

  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  const server = await startRedis({ appendfsync: 'everysec' })
  const queue = name => new FileQueueAdapter({ dataDir: join(folder, name), defaultJobOptions: done })
  const file = await natively(bus => new FileStoreAdapter({ dataDir: join(folder, 'store'), bus }), () => queue('queue'))
  const redis = await natively(bus => new RedisStoreAdapter({ connection: { port: server.port }, bus }), () => queue('queue-redis'))
  const peer = await bullmq(server.port)
  await bench.row({
    name: `${WORK}, on files and on Redis`,
    ops: RUNS,
    contenders: { 'native': file.run, 'native, events on Redis, jobs on files': redis.run, [BULLMQ]: peer.run, [FLOOR]: floor },
    why: 'a step here is five stored events, each of which can be read, followed and replayed; a job of BullMQ is a hash that is removed at its end',
  })
  await Promise.all([file.close(), redis.close(), peer.close()])
  await server.stop()
  rmSync(folder, { recursive: true })
}

/** Runs as many flows, {@link RUNS} at once. */
const inWaves = run => async (n) => {
  for (let left = n; left > 0; left -= RUNS) await run(Math.min(RUNS, left))
}

async function natively(createStore, createQueue) {
  const bus = createEventBus()
  const store = createStore(bus)
  const queue = createQueue()
  await store.init()
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
  return {
    run: async (n) => {
      const all = new Promise(resolve => allEnded = resolve)
      missing = n
      await inFlight(n, n, async () => {
        const runId = `run-${run++}`
        bus.publish({ type: 'flow.start', runId, flowName: flow.id, data: {} })
        await queue.enqueue('work', { name: step(0), data: { flowId: runId, flowName: flow.id, input: {} }, opts: { jobId: `${runId}__${step(0)}` } })
      })
      await all
    },
    close: async () => {
      await wiring.stop()
      await queue.close()
      await store.close()
    },
  }
}

/** A chain is a job whose child has a child, and so on: the innermost runs first. */
async function bullmq(port) {
  const { FlowProducer, Worker } = await import('bullmq')
  const connection = { host: '127.0.0.1', port }
  const producer = new FlowProducer({ connection })
  let missing = 0
  let allEnded
  const worker = new Worker('work', async job => ({ step: job.name }), { connection, concurrency: 16 })
  worker.on('completed', ({ name }) => {
    if (name === step(STEPS - 1) && --missing === 0) allEnded()
  })
  await worker.waitUntilReady()
  let run = 0
  const chain = (runId, i) => ({
    name: step(i), queueName: 'work', data: { runId }, opts: done, ...i > 0 && { children: [chain(runId, i - 1)] },
  })
  return {
    run: async (n) => {
      const all = new Promise(resolve => allEnded = resolve)
      missing = n
      await inFlight(n, n, () => producer.add(chain(`run-${run++}`, STEPS - 1)))
      await all
    },
    close: async () => {
      await worker.close()
      await producer.close()
    },
  }
}
