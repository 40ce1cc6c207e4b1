/** Stores and queues as an application writes them: their calls fail, and their jobs run, where a test says so. */
import type { JobContext, NewJob } from 'nvent-native'
import { until } from './until'

/** Returns an object whose methods are those of another. `before` is called first; what it throws or rejects with is the call's. */
export const intercepted = <T extends object>(object: T, before: (method: string, ...args: any[]) => unknown): any => new Proxy(object, {
  get: (target: any, method) => async (...args: any[]) => {
    await before(String(method), ...args)
    return target[method](...args)
  },
})

/** Returns an error that another try may not have. */
export const outage = (): Error => Object.assign(new Error('down'), { code: 'NVENT_UNAVAILABLE', retryable: true })

/** Keeps what is enqueued, and runs a job where a test says so. */
export class OwnQueue {
  readonly jobs: NewJob[] = []
  readonly workers: unknown[] = []
  readonly started: string[] = []
  /** Called before a job is taken. */
  before: () => void = () => {}
  private readonly handlers = new Map<string, (job: object, context?: Partial<JobContext>) => Promise<unknown>>()

  registerWorker(queue: string, name: string, handler: (job: object) => Promise<unknown>, opts: object): void {
    this.workers.push([queue, name, opts])
    this.handlers.set(queue, handler)
  }

  startProcessingQueue(queue: string): void {
    this.started.push(queue)
  }

  async enqueue(_queue: string, job: NewJob): Promise<string> {
    this.before()
    this.jobs.push(job)
    return job.opts!.jobId!
  }

  async getJob(_queue: string, id: string): Promise<object | null> {
    const job = this.jobs.find(({ opts }) => opts!.jobId === id)
    return job ? { id, state: 'active', ...job } : null
  }

  /** Calls the handler of a queue. */
  run(queue: string, job: object, context?: Partial<JobContext>): Promise<unknown> {
    return this.handlers.get(queue)!(job, context)
  }

  /** Resolves with the job that follows those there were, and takes it off. */
  async next(): Promise<NewJob> {
    return until('a job', () => this.jobs.shift())
  }
}
