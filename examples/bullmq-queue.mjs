/** BullMQ as the queue: an object with the methods of a QueueAdapter. */
import { Queue, Worker } from 'bullmq'
import { createAdapters, createWiringRegistry, defineFlow, shutdown, startFlow } from 'nvent-native'
import { startRedis } from './redis-server.mjs'

class BullQueueAdapter {
  #queues = new Map()
  #workers = new Map()

  constructor(connection) {
    this.connection = connection
  }

  #queue(name) {
    if (!this.#queues.has(name)) this.#queues.set(name, new Queue(name, { connection: this.connection }))
    return this.#queues.get(name)
  }

  async init() {}

  async enqueue(queue, { name, data, opts }) {
    return (await this.#queue(queue).add(name, data, opts)).id
  }

  async getJob(queue, id) {
    const job = await this.#queue(queue).getJob(id)
    return job ? { id, name: job.name, data: job.data, state: await job.getState(), attemptsMade: job.attemptsMade } : null
  }

  async getJobs(queue, { state, limit = 100, offset = 0 } = {}) {
    return (await this.#queue(queue).getJobs(state, offset, offset + limit - 1)).map(({ id, name, data }) => ({ id, name, data }))
  }

  getJobCounts(queue) {
    return this.#queue(queue).getJobCounts()
  }

  isPaused(queue) {
    return this.#queue(queue).isPaused()
  }

  pause(queue) {
    return this.#queue(queue).pause()
  }

  resume(queue) {
    return this.#queue(queue).resume()
  }

  async schedule(queue, { name, data }, { cron }) {
    await this.#queue(queue).upsertJobScheduler(name, { pattern: cron }, { name, data })
    return name
  }

  async removeJob(queue, id) {
    return await this.#queue(queue).remove(id) === 1
  }

  registerWorker(queue, jobName, handler, { concurrency = 1 } = {}) {
    let found = this.#workers.get(queue)
    if (!found) {
      const handlers = new Map()
      const worker = new Worker(queue, job => handlers.get(job.name)(job, { progress: value => job.updateProgress(value) }), {
        connection: this.connection, concurrency, autorun: false,
      })
      this.#workers.set(queue, found = { handlers, worker })
    }
    found.handlers.set(jobName, handler)
  }

  startProcessingQueue(queue) {
    void this.#workers.get(queue)?.worker.run()
  }

  on() {
    return () => {}
  }

  async close() {
    await Promise.all([...this.#workers.values()].map(({ worker }) => worker.close()))
    await Promise.all([...this.#queues.values()].map(queue => queue.close()))
  }
}

const redis = await startRedis()
const connection = { host: '127.0.0.1', port: redis.port }
await createAdapters({
  store: { adapter: 'redis' }, stream: { adapter: 'redis' }, queue: new BullQueueAdapter(connection), connections: { redis: connection },
})
const greet = defineFlow('greet', {
  hello: { emits: ['said'], run: async ({ name }, { emit }) => void await emit('said', `hello, ${name}`) },
  print: { subscribes: ['said'], run: ({ said }) => console.log(said) },
})
await createWiringRegistry({ flow: { flows: [greet] } }).start()

const run = await startFlow(greet, { name: 'BullMQ' })
console.log('the run has', (await run.result()).status)

await shutdown()
await redis.stop()
