import { runTracked, untracked } from './activity'
import { callback, fields, isArray, json, jsonObject, object, options, text } from './check'
import { debug } from './debug'
import { invalid, messageOf } from './errors'
import { registerWeakly } from './metrics/registry'
import { QUEUE } from './metrics/tables'
import { addon, bridge, call, callSync, flushDeliveries, healthOf, offDelivery, onDelivery } from './native'
import type { NativeQueue, Reply } from './native'
import { BULLMQ_OPTIONS, fileQueueOptions, jobQuery, MAX_COUNT, queueOptions } from './options/queue.js'
import { inSpan, maybeInSpan, messaging, traceparentOf, tracing } from './trace'
import type { SpanSpec } from './trace'
import type {
  FileQueue, FileQueueOptions, Job, JobContext, JobOptions, JobQuery, JobState, NewJob, QueueAdapter, QueueEvent, QueueOptions, QueueStats, RunningJob,
  ScheduleOptions, WorkerOptions,
} from './types'
import { Warnings, warnLimited, warnOnce } from './warn'

/** How long `close` waits for handlers, in ms. */
const CLOSE_TIMEOUT = 30_000

/** How long the end of a job waits for the answers to the store calls of its handler, in ms. */
const ANSWER_TIMEOUT = 5_000

/** Returns the options of a job without those that only BullMQ has. */
function jobOptions(what: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  const foreign = fields(what, value).map(([key]) => key).filter(key => Object.hasOwn(BULLMQ_OPTIONS, key)) as Array<keyof typeof BULLMQ_OPTIONS>
  if (foreign.length === 0) return value
  const own: Record<string, unknown> = { ...value }
  for (const key of foreign) {
    if (own[key] !== undefined) warnOnce('NVENT_IGNORED', `${what}.${key} is BullMQ's and is ignored by this queue: ${BULLMQ_OPTIONS[key]}`)
    delete own[key]
  }
  return own
}

/** What Infinity means in the options of a job that take it. */
const INFINITE_JOB_OPTIONS = { attempts: MAX_COUNT, timeout: 0, removeOnComplete: false, removeOnFail: false, count: undefined, age: undefined }

/** Refuses what JSON turns into null or leaves out. Returns the options with Infinity replaced where it has a meaning. */
function finiteNumbers(path: string, value: unknown, infinite: Record<string, unknown>, isRoot = true): unknown {
  if (typeof value !== 'object' || value === null) return value
  let own: Record<string, unknown> | undefined
  for (const [key, field] of fields(path, value)) {
    let replaced: unknown = field
    if (typeof field === 'function' || typeof field === 'symbol') throw invalid(`${path}.${key}: a ${typeof field} is no value of an option`)
    if (typeof field === 'number' && !Number.isFinite(field)) {
      if (field !== Infinity || !Object.hasOwn(infinite, key)) throw invalid(`${path}.${key}: expected a finite number, got ${field}`)
      replaced = infinite[key]
    }
    // Only the fields of options have a meaning: what is in them needs no look, and may contain itself.
    else if (isRoot && typeof field === 'object' && field !== null && !isArray(field)) {
      replaced = finiteNumbers(`${path}.${key}`, field, infinite, false)
    }
    if (replaced !== field) (own ??= { ...value })[key] = replaced
  }
  return own ?? value
}

/** An attempt under way. Its signal is made when it is first read: most handlers do not, and it takes as long as the job's JSON. */
class Attempt {
  private controller: AbortController | undefined

  get signal(): AbortSignal {
    return (this.controller ??= new AbortController()).signal
  }

  abort(reason: unknown): void {
    this.controller ??= new AbortController()
    this.controller.abort(reason)
  }
}

/** Serialises a job. Its attempts continue the trace, unless its options have one. */
function newJob(job: NewJob, traceparent?: string): string {
  const opts = Object.fromEntries(fields('job', object('job', job)))['opts']
  if (opts !== undefined && opts !== null) object('job.opts', opts)
  let own: any = finiteNumbers('job.opts', jobOptions('job.opts', opts), INFINITE_JOB_OPTIONS)
  if (traceparent !== undefined && (own === undefined || typeof own === 'object')) own = { traceparent, ...own }
  return jsonObject('job', own === opts ? job : { ...job, opts: own })
}

/** Returns the span of an attempt, which continues the trace in which the job was enqueued. */
const attemptSpan = (queue: string, job: Job): SpanSpec => ({
  name: `process ${queue}`,
  kind: 'CONSUMER',
  attributes: { ...messaging('process', 'process', queue, { id: job.id }), 'nvent.job.name': job.name, 'nvent.job.attempt': (job.attemptsMade ?? 0) + 1 },
  parent: (job as { opts?: JobOptions }).opts?.traceparent,
})

/** Returns the run whose step a job is. */
function runOf({ data }: Job): string | undefined {
  const id: unknown = (data as { flowId?: unknown } | null)?.flowId
  return typeof id === 'string' ? id : undefined
}

/** Marks queues of this package, in whichever copy of it. `drain` of an application's own may mean another thing: BullMQ's removes jobs. */
export const DRAINS = Symbol.for('nvent-native.drains')

/** The queue adapter of every backend. */
export abstract class NventQueueAdapter implements QueueAdapter {
  /** @internal */
  readonly [DRAINS] = true
  /** @internal */
  readonly native: NativeQueue
  private readonly subscriptions = new Set<number>()
  /** The subscription of each worker, by queue and name. */
  private readonly workers = new Map<string, () => void>()
  /** Attempts whose handlers are running, by token. */
  private readonly attempts = new Map<number, Attempt>()
  private readonly warnings: Warnings
  private readonly endMetrics: (last?: QueueStats) => void
  private receivesCancellations = false
  private readonly counters = { enqueued: 0, started: 0, completed: 0, failed: 0 }
  /** Keeps the process alive while a worker with `keepAlive` is registered. */
  private keepAlive: NodeJS.Timeout | undefined
  /** Resolves when every enqueue made so far has settled. undefined: all have. */
  private enqueued: Promise<void> | undefined

  /** @internal */
  protected constructor(private readonly backend: 'memory' | 'file', given: QueueOptions) {
    const settings = { ...given, defaultJobOptions: finiteNumbers('defaultJobOptions', jobOptions('defaultJobOptions', given.defaultJobOptions), INFINITE_JOB_OPTIONS) }
    this.native = callSync(() => addon.NativeQueue[backend](bridge, json('options', settings)))
    this.warnings = new Warnings(`the ${backend} queue`)
    this.endMetrics = registerWeakly(this, { metrics: QUEUE, labels: { backend } }, queue => queue.stats())
  }

  async init(): Promise<void> {
    await call(() => this.native.open())
    debug('the %s queue is open', this.backend)
  }

  async enqueue<Data = any>(queue: string, job: NewJob<Data>): Promise<string> {
    const traced = tracing()
    if (!traced) return this.add(queue, job)
    const spec: SpanSpec = { name: `enqueue ${queue}`, kind: 'PRODUCER', attributes: { ...messaging('enqueue', 'send', String(queue)), 'nvent.job.name': String(job?.name) } }
    return inSpan(traced, spec, async (span) => {
      const id = await this.add(queue, job, traceparentOf(traced, span))
      span.setAttribute('messaging.message.id', id)
      return id
    })
  }

  private add(queue: string, job: NewJob, traceparent?: string): string | Promise<string> {
    const id = call<string>(() => this.native.enqueue(text('queue', queue), newJob(job, traceparent)))
    this.counters.enqueued += 1
    if (id instanceof Promise) {
      // Without the values, which would keep each other alive.
      const all: Promise<void> = Promise.allSettled([this.enqueued, id]).then(() => {
        if (this.enqueued === all) this.enqueued = undefined
      })
      this.enqueued = all
    }
    return id
  }

  async schedule<Data = any>(queue: string, job: NewJob<Data>, opts?: ScheduleOptions): Promise<string> {
    return call(() => this.native.schedule(text('queue', queue), newJob(job), jsonObject('options', finiteNumbers('options', opts ?? {}, { limit: undefined }))))
  }

  async getJob<Data = any, Result = any>(queue: string, id: string): Promise<Job<Data, Result> | null> {
    return call(() => this.native.job(text('queue', queue), text('id', id)))
  }

  async getJobs<Data = any, Result = any>(queue: string, query?: JobQuery): Promise<Array<Job<Data, Result>>> {
    const { state, limit, offset } = options('query', query, jobQuery)
    return call(() => this.native.jobs(text('queue', queue), state, offset, limit))
  }

  async getJobCounts(queue: string): Promise<Record<JobState, number>> {
    return call(() => this.native.counts(text('queue', queue)))
  }

  async getScheduledJobs(queue: string): Promise<any[]> {
    const schedules = await call<any[]>(() => this.native.scheduled(text('queue', queue)))
    return schedules.map(schedule => ({ ...schedule, nextRun: new Date(schedule.nextRun) }))
  }

  async removeScheduledJob(scheduleId: string): Promise<boolean> {
    return call(() => this.native.removeScheduled(text('scheduleId', scheduleId)))
  }

  async removeJob(queue: string, jobId: string): Promise<boolean> {
    return call(() => this.native.removeJob(text('queue', queue), text('jobId', jobId)))
  }

  async retryJob(queue: string, jobId: string): Promise<boolean> {
    return call(() => this.native.retryJob(text('queue', queue), text('jobId', jobId)))
  }

  async health(): Promise<{ ok: boolean, backend: string, detail?: string }> {
    return { backend: this.backend, ...await healthOf(this.native) }
  }

  stats(): QueueStats {
    return { ...this.counters, running: this.attempts.size, workers: this.workers.size, handlerErrors: this.warnings.count }
  }

  /** Returns the names of the queues that have a worker in this process. @internal */
  queues(): string[] {
    return [...new Set([...this.workers.keys()].map(key => JSON.parse(key)[0] as string))]
  }

  /** Makes the workers of queues that have none yet wait for `startProcessingQueue`, until they are released. @internal */
  holdWorkers(isHeld: boolean): void {
    this.native.holdWorkers(isHeld)
  }

  async isPaused(queue: string): Promise<boolean> {
    return call(() => this.native.isPaused(text('queue', queue)))
  }

  async pause(queue: string): Promise<void> {
    await call(() => this.native.pause(text('queue', queue)))
  }

  async resume(queue: string): Promise<void> {
    await call(() => this.native.resume(text('queue', queue)))
  }

  on(queue: string, event: QueueEvent, listener: (payload: any) => void): () => void {
    callback('callback', listener)
    return this.subscribe(() => this.native.on(text('queue', queue), text('event', event)), payload => listener(payload))
  }

  registerWorker<Data = any, Result = any>(
    queue: string, jobName: string, handler: (job: RunningJob<Data, Result>, context: JobContext) => Promise<Result>, opts?: WorkerOptions,
  ): void {
    callback('handler', handler)
    const settings = jsonObject('options', finiteNumbers('options', opts ?? {}, { concurrency: MAX_COUNT }))
    const { keepAlive = false } = opts ?? {}
    if (typeof keepAlive !== 'boolean') throw invalid(`options.keepAlive: expected true or false, got ${typeof keepAlive}`)
    this.receiveCancellations()
    const key = JSON.stringify([text('queue', queue), text('jobName', jobName)])
    const end = this.subscribe(
      () => this.native.registerWorker(text('queue', queue), text('jobName', jobName), settings),
      // Not awaited: the queue bounds the number of jobs that run at a time.
      ({ token, job }: { token: number, job: Job }) => this.begin(() => void this.run(queue, token, job, handler)),
    )
    // The queue has taken back what the worker before had not started.
    this.workers.get(key)?.()
    this.workers.set(key, end)
    if (keepAlive) this.keepAlive ??= setInterval(() => {}, 0x7FFFFFFF)
  }

  startProcessingQueue(queue: string): void {
    this.later(() => this.native.start(text('queue', queue)))
  }

  /**
   * Stops the workers and resolves when the running handlers have ended. Everything else goes on until `close`: what is
   * enqueued is stored for the next start.
   * @internal
   */
  async drain(): Promise<void> {
    try {
      await untracked(() => call(() => this.native.drain(CLOSE_TIMEOUT)))
    }
    catch (error) {
      // The application has closed it.
      if ((error as { code?: string }).code !== 'NVENT_CLOSED') throw error
    }
  }

  /** Calls {@link QueueAdapter.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async close(): Promise<void> {
    await untracked(() => call(() => this.native.close(CLOSE_TIMEOUT)))
    debug('the %s queue is closed', this.backend)
    clearInterval(this.keepAlive)
    for (const id of this.subscriptions) {
      flushDeliveries(id)
      offDelivery(id)
    }
    this.subscriptions.clear()
    this.endMetrics()
  }

  /** Begins a job in a later turn: the enqueuer continues first. nvent creates the run of a flow only after it has enqueued its first step. */
  private begin(run: () => void): void {
    if (this.enqueued) void this.enqueued.then(() => setImmediate(run))
    else setImmediate(run)
  }

  /** Runs a handler and commits its outcome. */
  private async run(queue: string, token: number, job: Job, handler: (job: any, ctx: any) => Promise<any>): Promise<void> {
    const progress = async (value: unknown): Promise<void> => {
      await call(() => this.native.progress(token, json('progress', value)))
    }
    if (!this.native.startAttempt(token)) return
    this.counters.started += 1
    const attempt = new Attempt()
    this.attempts.set(token, attempt)
    const context = {
      progress,
      get signal() {
        return attempt.signal
      },
    }
    const { outcome, answered } = await runTracked(() => maybeInSpan(
      () => attemptSpan(queue, job),
      async () => json('result', await handler(job, context) ?? null),
    ), runOf(job))
    this.attempts.delete(token)
    this.counters[outcome.status === 'fulfilled' ? 'completed' : 'failed'] += 1
    try {
      if (answered) {
        // The next job may start; only the end of this one waits.
        await call(() => this.native.settled(token))
        if (!await answered(ANSWER_TIMEOUT)) {
          warnOnce('NVENT_UNAVAILABLE', `jobs ended before the store calls of their handlers were answered: the store took longer than ${ANSWER_TIMEOUT} ms`)
        }
      }
      await call(() => outcome.status === 'fulfilled'
        ? this.native.complete(token, outcome.value)
        : this.native.fail(token, messageOf(outcome.reason)))
    }
    catch (error) {
      // The outcome was not stored. The job is still active there, and runs again when the queue is opened the next time.
      this.warnings.handlerFailed(error)
    }
  }

  /** Aborts the signals of attempts that are to be given up. */
  private receiveCancellations(): void {
    if (this.receivesCancellations) return
    this.receivesCancellations = true
    this.subscribe(() => this.native.cancellations(), ({ token, reason }: { token: number, reason: string }) => {
      if (reason === 'abandoned') {
        warnLimited('NVENT_HANDLER', 'a handler went on after its timeout and ignored its signal: its place was given to another job')
        return
      }
      if (reason === 'timed-out') {
        warnOnce('NVENT_TIMEOUT', 'an attempt of a job was ended by its timeout (`timeout` of the job; `stepTimeout`, 5 minutes unless configured, in nvent): further ones are not reported')
      }
      const why = { 'timed-out': 'the attempt timed out', 'removed': 'the job was removed', 'closed': 'the queue was closed' }[reason]
      this.attempts.get(token)?.abort(new DOMException(why, reason === 'timed-out' ? 'TimeoutError' : 'AbortError'))
    })
  }

  /** Subscribes to deliveries; returns a function that unsubscribes. */
  private subscribe(start: () => Reply, handle: (message: any) => void): () => void {
    let ended = false
    let id: number | undefined
    const end = (subscription: number): void => {
      offDelivery(subscription)
      if (this.subscriptions.delete(subscription)) this.later(() => this.native.off(subscription))
    }
    this.later(start, (subscription: number) => {
      id = subscription
      this.subscriptions.add(subscription)
      onDelivery(subscription, false, handle, this.warnings.handlerFailed)
      if (ended) end(subscription)
    })
    return () => {
      if (ended) return
      ended = true
      if (id !== undefined) end(id)
    }
  }

  /** Makes a call that returns nothing. Throws a failure that is known at once, warns of a later one. */
  private later<T>(start: () => Reply, then: (value: T) => void = () => {}): void {
    const started = call<T>(start)
    if (started instanceof Promise) started.then(then).catch(this.warnings.handlerFailed)
    else then(started)
  }
}

/** Queues in memory. */
export class MemoryQueueAdapter extends NventQueueAdapter {
  constructor(opts: QueueOptions = {}) {
    super('memory', options('', opts, queueOptions))
  }
}

/** Queues in a folder: jobs survive the process. One process at a time. */
export class FileQueueAdapter extends NventQueueAdapter implements FileQueue {
  constructor(opts: FileQueueOptions) {
    super('file', options('', opts, fileQueueOptions))
  }

  async backup(path: string): Promise<void> {
    await call(() => this.native.backup(text('path', path)))
  }

  async verify(): Promise<{ ok: boolean, problems: string[] }> {
    return call(() => this.native.verify())
  }
}
