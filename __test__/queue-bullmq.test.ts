import { Queue, QueueEvents, Worker } from 'bullmq'
import { createEventBus, createWebhookWiring, createWiringRegistry, MemoryStoreAdapter, MemoryStreamAdapter, setAdapters, shutdownAdapters, useQueueAdapter } from 'nvent-native'
import type { Job, JobQuery, JobState, NewJob, QueueAdapter, QueueEvent, ScheduleOptions, WorkerOptions } from 'nvent-native'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { ORDER, runsAFlow } from './conformance/queue-flow'
import { Receiver, setDelays } from './support/receiver'
import { RedisServer } from './support/redis'
import { until } from './support/until'

/** BullMQ 6 has no state for jobs of a paused queue. */
const STATES = ['waiting', 'active', 'completed', 'failed', 'delayed'] as const

type Handler = (job: any, ctx: any) => Promise<any>

/** A queue on BullMQ, as an application would write it. */
class BullQueueAdapter implements QueueAdapter {
  private readonly queues = new Map<string, Queue>()
  private readonly events = new Map<string, QueueEvents>()
  private readonly workers = new Map<string, { handlers: Map<string, Handler>, worker: Worker }>()

  constructor(private readonly connection: { host: string, port: number }) {}

  private queue(name: string): Queue {
    let queue = this.queues.get(name)
    if (!queue) this.queues.set(name, queue = new Queue(name, { connection: this.connection }))
    return queue
  }

  async init(): Promise<void> {}

  async enqueue(queue: string, job: NewJob): Promise<string> {
    return (await this.queue(queue).add(job.name, job.data, job.opts)).id!
  }

  async schedule(queue: string, job: NewJob, { delay, cron, repeat }: ScheduleOptions = {}): Promise<string> {
    const pattern = cron ?? repeat?.pattern
    if (pattern === undefined) return this.enqueue(queue, { ...job, opts: { ...job.opts, delay } })
    const id = job.opts?.jobId ?? `${job.name} ${pattern}`
    await this.queue(queue).upsertJobScheduler(id, { pattern, limit: repeat?.limit }, { name: job.name, data: job.data })
    return id
  }

  async getJob(queue: string, id: string): Promise<Job | null> {
    const job = await this.queue(queue).getJob(id)
    return job ? { ...job.asJSON(), id, name: job.name, data: job.data, state: await job.getState() as JobState, returnvalue: job.returnvalue } as any : null
  }

  async getJobs(queue: string, { state, limit = 1_000, offset = 0 }: JobQuery = {}): Promise<Job[]> {
    const jobs = await this.queue(queue).getJobs(STATES.filter(known => state?.includes(known) ?? true), offset, offset + limit - 1)
    return Promise.all(jobs.map(async job => (await this.getJob(queue, job.id!))!))
  }

  async getJobCounts(queue: string): Promise<Record<JobState, number>> {
    return { paused: 0, ...await this.queue(queue).getJobCounts(...STATES) } as Record<JobState, number>
  }

  getScheduledJobs = (queue: string): Promise<any[]> => this.queue(queue).getJobSchedulers()

  async removeScheduledJob(id: string): Promise<boolean> {
    const removed = await Promise.all([...this.queues.values()].map(queue => queue.removeJobScheduler(id)))
    return removed.includes(true)
  }

  async removeJob(queue: string, id: string): Promise<boolean> {
    return await this.queue(queue).remove(id) === 1
  }

  on(queue: string, event: QueueEvent, callback: (payload: any) => void): () => void {
    let events = this.events.get(queue)
    if (!events) this.events.set(queue, events = new QueueEvents(queue, { connection: this.connection }))
    events.on(event, callback)
    return () => void events.off(event, callback)
  }

  async retryJob(queue: string, id: string): Promise<boolean> {
    const job = await this.queue(queue).getJob(id)
    if (await job?.getState() !== 'failed') return false
    await job!.retry()
    return true
  }

  health = async (): Promise<{ ok: boolean, backend: string }> => ({ ok: true, backend: 'bullmq' })
  stats = (): Record<string, number> => ({})
  isPaused = (queue: string): Promise<boolean> => this.queue(queue).isPaused()
  pause = (queue: string): Promise<void> => this.queue(queue).pause()
  resume = (queue: string): Promise<void> => this.queue(queue).resume()

  registerWorker(queue: string, jobName: string, handler: Handler, opts: WorkerOptions = {}): void {
    const known = this.workers.get(queue)
    if (known) return void known.handlers.set(jobName, handler)
    const handlers = new Map([[jobName, handler]])
    const worker = new Worker(queue, async job => handlers.get(job.name)!(job, {}), {
      connection: this.connection, autorun: false, concurrency: opts.concurrency ?? 1,
    })
    this.workers.set(queue, { handlers, worker })
  }

  startProcessingQueue(queue: string): void {
    void this.workers.get(queue)?.worker.run()
  }

  async close(): Promise<void> {
    const ends = [...[...this.workers.values()].map(({ worker }) => worker), ...this.events.values(), ...this.queues.values()]
    for (const end of ends) await end.close()
  }
}

let redis: RedisServer
beforeAll(async () => { redis = await RedisServer.start() })
afterAll(() => redis.stop())
beforeEach(() => redis.flush(0))

it('runs a flow on a queue of BullMQ that createAdapters was handed', async () => {
  const queue = new BullQueueAdapter(redis.connection)
  await runsAFlow(queue)
  await expect(queue.enqueue('steps', { name: 'check', data: 1 })).rejects.toThrow()
})

it('is taken by setAdapters and by the wiring that is handed it', async () => {
  const queue = new BullQueueAdapter(redis.connection)
  setAdapters({ queue })
  expect(useQueueAdapter()).toBe(queue)
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus })
  const registry = createWiringRegistry({ bus, store, queue, stream: new MemoryStreamAdapter(), flow: { flows: [ORDER] } })
  await registry.start()
  bus.publish({ type: 'flow.start', runId: 'run-2', flowName: 'order' })
  bus.publish({ type: 'emit', runId: 'run-2', flowName: 'order', stepName: 'check', data: { name: 'order.checked', payload: 1 } })
  await until('the steps to wait', async () => (await queue.getJobCounts('steps')).waiting === 2)
  expect((await queue.getJobs('steps', { state: ['waiting'] })).map(job => job.id).sort()).toEqual(['run-2__pack', 'run-2__pay'])
  await registry.stop()
  await store.close()
  await shutdownAdapters()
})

it('runs the attempts of webhooks', async () => {
  setDelays([50])
  const receiver = await Receiver.start()
  const answers = [500, 503, 200]
  receiver.respond = ({ answer }) => void answer.writeHead(answers.shift()!).end()
  const queue = new BullQueueAdapter(redis.connection)
  const store = new MemoryStoreAdapter({ bus: createEventBus() })
  const webhooks = createWebhookWiring({ store, queue, webhooks: [{ name: 'hook', types: '*', url: receiver.url, allowPrivate: true }] })
  await webhooks.start()
  await store.append('s', { type: 'order.paid' })
  const [delivery] = await until('it is delivered', async () => {
    const delivered = await webhooks.deliveries('hook', { state: 'delivered' })
    return delivered.length > 0 ? delivered : undefined
  })
  expect(delivery).toMatchObject({ attempts: 3, status: 200 })
  expect(receiver.requests.map(({ id }) => id)).toEqual(Array(3).fill(delivery!.id))
  await webhooks.stop()
  await queue.close()
  await store.close()
  await receiver.stop()
  setDelays(undefined)
})
