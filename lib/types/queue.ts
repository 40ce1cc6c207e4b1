import type { Durability } from './store'

/** Where a job is in its life. */
export type JobState = 'waiting' | 'active' | 'completed' | 'failed' | 'delayed' | 'paused'

/** Events of a queue. */
export type QueueEvent = 'waiting' | 'active' | 'progress' | 'completed' | 'failed' | 'delayed' | 'paused' | 'stalled'

/** Options of a job. */
export interface JobOptions {
  /** An id that is there already is a no-op that returns the same id. Absent: one is made. */
  jobId?: string
  /** How often the job is tried in all; Infinity: until it succeeds. Default 1. */
  attempts?: number
  /** Wait before another attempt: a number is a fixed delay in milliseconds. */
  backoff?: number | {
    /** `exponential`: twice as long after each attempt. */
    type: 'exponential' | 'fixed'
    /** The (first) wait, in milliseconds. */
    delay: number
    /** The part of a wait, from 0 to 1, that chance may take away. Default 0. */
    jitter?: number
  }
  /** Milliseconds before the job may run. Default 0. */
  delay?: number
  /** Lower numbers run first; jobs without one run before them. */
  priority?: number
  /** Runs before the jobs of its priority that wait already. */
  lifo?: boolean
  /** Milliseconds after which an attempt counts as failed and its signal is aborted. Absent, 0 or Infinity: never. */
  timeout?: number
  /** Removes the job when it completes; a number keeps that many of the newest, false all. Default 10,000 for each queue. */
  removeOnComplete?: boolean | number | KeepJobs
  /** Removes the job after its final failure; a number keeps that many of the newest, false all. Default 10,000 for each queue. */
  removeOnFail?: boolean | number | KeepJobs
  /** W3C trace context that the spans of its attempts continue. Set by `enqueue` where the application traces. */
  traceparent?: string
}

/** Which of the jobs that ended are kept, looked at when one ends: the newest `count`, and of them those that ended at most `age` seconds ago. */
export type KeepJobs = {
  /** The newest so many. */
  count: number
} | {
  /** Those that ended at most so many seconds ago. */
  age: number
  /** Of them the newest so many. */
  count?: number
}

/** A job to be done. */
export interface NewJob<Data = any> {
  /** Which handler of the queue runs it. */
  name: string
  /** Any JSON value. */
  data: Data
  /** Options; they win over the queue's `defaultJobOptions`. */
  opts?: JobOptions
}

/** A job, as the queue returns it. */
export interface Job<Data = any, Result = any> {
  /** Unique within its queue. */
  id: string
  /** Which handler runs it. */
  name: string
  /** What it was given. */
  data: Data
  /** How it is run, as far as it was said. */
  opts?: JobOptions
  /** Where it is in its life. */
  state: JobState
  /** What its handler returned. */
  returnvalue?: Result
  /** Why its last attempt failed. */
  failedReason?: string
  /** When it was enqueued, in milliseconds, as the two below. */
  timestamp?: number
  /** When its last attempt began. */
  processedOn?: number
  /** When it ended. */
  finishedOn?: number
  /** Attempts so far. */
  attemptsMade?: number
  /** How often its worker went away while it ran. Absent: never. */
  stalledCounter?: number
  /** Reported by its handler, from 0 to 100. */
  progress?: number
}

/** A job, as its handler gets it. */
export type RunningJob<Data = any, Result = any> = Job<Data, Result> & {
  /** How it is run: its own options, and the queue's `defaultJobOptions`. */
  opts: JobOptions
}

/** When a scheduled job runs. */
export interface ScheduleOptions {
  /** Once, after so many milliseconds. */
  delay?: number
  /** Again and again: five fields, or six with seconds first. */
  cron?: string
  /** The same, with an end, in a time zone (an IANA name; default: the system's). */
  repeat?: { pattern?: string, limit?: number, tz?: string }
}

/** Options of a worker. */
export interface WorkerOptions {
  /** Jobs of the queue that run at a time; the first registration of a queue counts. Default 1. */
  concurrency?: number
  /** Whether jobs run once the worker is registered. false: they wait until `resume`. Default true. */
  autorun?: boolean
  /** Milliseconds that a handler may go on after its timeout before its place is given to another job, with a warning. Default 30,000. */
  abandonAfter?: number
  /** Keeps the process alive until the queue is closed. Otherwise a process that has nothing else to do ends. Default false. */
  keepAlive?: boolean
}

/** Which jobs to list. */
export interface JobQuery {
  /** Jobs in one of these states. Absent: all. */
  state?: JobState[]
  /** At most so many. */
  limit?: number
  /** Jobs to leave out at the beginning. Default 0. */
  offset?: number
}

/** Second argument of a worker's handler. */
export interface JobContext {
  /**
   * Aborted when the attempt times out, its job is removed, or `close()` has waited long enough. The attempt keeps its
   * place until its handler has settled, so attempts of a job never overlap and the concurrency is exact; see
   * `abandonAfter`.
   */
  readonly signal: AbortSignal
  /** Stores how far the job is: any JSON. */
  progress(value: any): Promise<void>
}

/** nvent's QueueAdapter. */
export interface QueueAdapter {
  /** Opens the queue. Idempotent; every other method opens it on first use as well. */
  init(): Promise<void>
  /** Adds a job. Returns its id. */
  enqueue<Data = any>(queue: string, job: NewJob<Data>): Promise<string>
  /** Adds a job that runs later, or again and again. Returns the schedule's id. */
  schedule<Data = any>(queue: string, job: NewJob<Data>, opts?: ScheduleOptions): Promise<string>
  /** Returns the job, or null. */
  getJob<Data = any, Result = any>(queue: string, id: string): Promise<Job<Data, Result> | null>
  /**
   * Returns jobs: those that wait in the order in which they run, the others newest first. Only those of the page are
   * read; an offset is a walk along the index, 5 ms for 100,000 jobs.
   */
  getJobs<Data = any, Result = any>(queue: string, query?: JobQuery): Promise<Array<Job<Data, Result>>>
  /** Returns the number of jobs in each state. */
  getJobCounts(queue: string): Promise<Record<JobState, number>>
  /** Returns the schedules of a queue: `{ id, jobName, queueName, pattern, cron, tz?, limit?, repeatCount, nextRun }`, `nextRun` a Date. */
  getScheduledJobs(queue: string): Promise<any[]>
  /** Removes a schedule, or a job that `schedule` delayed. Returns whether there was one. */
  removeScheduledJob(scheduleId: string): Promise<boolean>
  /** Removes a job; the result of an active one is ignored. Returns whether it was there. */
  removeJob(queue: string, jobId: string): Promise<boolean>
  /**
   * Calls `callback` for each event of this type of the queue, with `{ jobId, name, attemptsMade, … }` and, as the event has
   * it, `job` (waiting, delayed), `delay`, `progress`, `returnvalue`, or `failedReason` and `maxAttempts`. Returns a function
   * that removes the listener.
   */
  on(queue: string, event: QueueEvent, callback: (payload: any) => void): () => void
  /** Returns whether a queue is paused. */
  isPaused(queue: string): Promise<boolean>
  /** Pauses a queue until `resume`: once the call has resolved, no job starts and no handler is called. */
  pause(queue: string): Promise<void>
  /** Resumes a paused queue. */
  resume(queue: string): Promise<void>
  /** Registers the handler that runs the jobs of a name. A rejection is a failed attempt; a result with `awaiting: true` means: forget the job, its id may be used again. */
  registerWorker<Data = any, Result = any>(
    queue: string, jobName: string, handler: (job: RunningJob<Data, Result>, context: JobContext) => Promise<Result>, opts?: WorkerOptions,
  ): void
  /** Makes a failed job wait for one more attempt. Returns whether it had failed. */
  retryJob(queue: string, jobId: string): Promise<boolean>
  /** Returns whether the queue is usable. */
  health(): Promise<{ ok: boolean, backend: string, detail?: string }>
  /** Returns the counters of this adapter. */
  stats(): Record<string, number>
  /** Starts the workers of a queue. Optional: they run by themselves. Within nvent, those that it registers while it starts wait for this call. */
  startProcessingQueue(queue: string): void
  /**
   * Starts no further job, waits up to 30 s for running handlers, then closes. Jobs that are enqueued meanwhile, also by
   * these handlers, are stored and run at the next start. A job ends once the store calls that its handler caused have
   * been answered, for which it waits up to 5 s.
   */
  close(): Promise<void>
}

/** What an adapter has done since it was made, as numbers. */
export interface QueueStats extends Record<string, number> {
  enqueued: number
  /** Attempts whose handler was called, succeeded and failed. */
  started: number
  completed: number
  failed: number
  /** Handlers at work. */
  running: number
  workers: number
  /** Listeners that threw, and outcomes that could not be stored. */
  handlerErrors: number
}

/** A queue with files of its own. */
export interface FileQueue extends QueueAdapter {
  /**
   * Copies all queues, as they are at one moment, to a new file at `path`. To restore, put it into an empty `dataDir`
   * under the name `queue.db`. Other calls wait meanwhile.
   */
  backup(path: string): Promise<void>
  /** Reads everything and reports what is wrong. Other calls wait meanwhile. */
  verify(): Promise<{ ok: boolean, problems: string[] }>
}

/** Options of {@link MemoryQueueAdapter}. */
export interface QueueOptions {
  /** For jobs that do not say otherwise. */
  defaultJobOptions?: JobOptions
}

/** Options of {@link FileQueueAdapter}. */
export interface FileQueueOptions extends QueueOptions {
  /** The folder of the queue, made where it is missing. One process at a time; the others get NVENT_LOCKED. */
  dataDir: string
  /** What an acknowledged job survives. Default `os`. */
  durability?: Durability
}
