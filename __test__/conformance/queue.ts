import { describe } from 'vitest'
import type { Job, JobOptions, QueueAdapter, QueueEvent, QueueOptions } from 'nvent-native'
import { Inbox } from '../support/until'
import { freshEnvironments } from './environment'
import type { Environment } from './environment'
import { attempts } from './queue-attempts'
import { barrier } from './queue-barrier'
import { badInput } from './queue-input'
import { jobs } from './queue-jobs'
import { lifecycle } from './queue-lifecycle'
import { schedules } from './queue-schedules'
import { workers } from './queue-workers'

/** Where jobs are kept. */
type QueueEnvironment = Environment<QueueAdapter, QueueOptions>

/** What backends differ in. Each answer is tested, the noes too. */
export interface QueueCapabilities {
  /** A later adapter in the same environment finds the jobs of an earlier one. */
  durable: boolean
}

export interface QueueContext {
  readonly queue: QueueAdapter
  /** A further adapter, closed after the test. */
  readonly another: (options?: QueueOptions) => QueueAdapter
  /** Jobs named `a` in the queue `q`. */
  readonly add: (...jobs: JobOptions[]) => Promise<string[]>
  /** Registers what runs them, and starts. */
  readonly work: (handler: (job: any, ctx: any) => any, concurrency?: number) => void
  /** Events of the queue `q`. */
  readonly collect: (event: QueueEvent) => Inbox
  /** The state of a job in `q`; undefined where there is none. */
  readonly state: (id: string) => Promise<Job['state'] | undefined>
  /** Runs a job elsewhere, from end to end: what was due before that has happened. */
  readonly roundTrip: () => Promise<void>
  readonly capabilities: QueueCapabilities
}

/** The contract of a queue. Every backend's test calls it with a way to make environments. */
export function queueConformance(name: string, factory: () => Promise<QueueEnvironment>, capabilities: QueueCapabilities): void {
  describe(`queue: ${name}`, () => {
    let trips = 0
    const { first, another } = freshEnvironments(factory, adapter => adapter.close())
    const context: QueueContext = {
      get queue() { return first() },
      another,
      add: (...jobs) => Promise.all(jobs.map(opts => context.queue.enqueue('q', { name: 'a', data: { of: opts.jobId }, opts }))),
      work: (handler, concurrency = 1) => {
        context.queue.registerWorker('q', 'a', async (job, ctx) => handler(job, ctx), { concurrency })
        context.queue.startProcessingQueue('q')
      },
      collect: (event) => {
        const inbox = new Inbox()
        context.queue.on('q', event, inbox.take)
        return inbox
      },
      state: async id => (await context.queue.getJob('q', id))?.state,
      roundTrip: async () => {
        const elsewhere = `trip-${++trips}`
        const done = new Inbox()
        context.queue.on(elsewhere, 'completed', done.take)
        context.queue.registerWorker(elsewhere, 'a', async () => {})
        context.queue.startProcessingQueue(elsewhere)
        await context.queue.enqueue(elsewhere, { name: 'a', data: null })
        await done.atLeast(1)
      },
      capabilities,
    }

    describe('jobs', () => jobs(context))
    describe('workers', () => workers(context))
    describe('attempts', () => attempts(context))
    describe('store calls', () => barrier(context))
    describe('schedules', () => schedules(context))
    describe('bad input', () => badInput(context))
    describe('life cycle', () => lifecycle(context))
  })
}
