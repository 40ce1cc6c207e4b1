/** Options of queues, workers and jobs. */
import type { FileQueueOptions, JobOptions, JobQuery, JobState, KeepJobs, QueueOptions } from '../types/queue'
import { duration, either, flag, group, list, number, oneOf, required, text, whole, withDefault } from './schema.js'
import type { Option, Schema } from './schema.js'
import { durability } from './store.js'

/** Options of BullMQ without an effect here, and why. They are ignored with a warning: nvent passes them on. */
export const BULLMQ_OPTIONS = {
  continueParentOnFailure: 'jobs have no parents',
  deduplication: 'a jobId does that',
  failParentOnFailure: 'jobs have no parents',
  ignoreDependencyOnFailure: 'jobs have no parents',
  keepLogs: 'jobs have no logs',
  parent: 'jobs have no parents',
  prevMillis: 'schedule() repeats jobs',
  removeDependencyOnFailure: 'jobs have no parents',
  repeat: 'schedule() repeats jobs',
  repeatJobKey: 'schedule() repeats jobs',
  sizeLimit: 'data of any size is taken',
  stackTraceLimit: 'no stacks are kept',
  telemetry: 'there is none',
  timestamp: 'it is the time of the call',
} as const

/** The largest count of the core. */
export const MAX_COUNT = 4_294_967_295
/** Ten years, in ms. */
const MAX_DURATION = 10 * 366 * 24 * 3_600_000

const count = (min: number) => whole(min, MAX_COUNT)
const keep = either(flag(), either(whole(0, MAX_COUNT, { endless: true }), group<{ count?: number, age?: number }>({
  count: whole(0, MAX_COUNT, { endless: true }), age: number(0, MAX_DURATION / 1000, { unit: 'seconds', endless: true }),
}, { ignored: ['limit'] }))) as Option<boolean | number | KeepJobs, 'optional'>

/** What jobs have that do not say otherwise. Those of a job are read by the core. */
export const jobOptions: Schema<JobOptions> = {
  jobId: text({ filled: true }),
  attempts: whole(1, MAX_COUNT, { endless: true }),
  backoff: either(duration(0, MAX_DURATION), group<Exclude<JobOptions['backoff'], number | undefined>>({
    type: required(oneOf(['exponential', 'fixed'])), delay: required(duration(0, MAX_DURATION)), jitter: number(0, 1),
  })),
  delay: duration(0, MAX_DURATION),
  priority: count(0),
  lifo: flag(),
  timeout: duration(0, MAX_DURATION, { endless: true }),
  removeOnComplete: keep,
  removeOnFail: keep,
  traceparent: text(),
}

export const queueOptions: Schema<QueueOptions> = { defaultJobOptions: group(jobOptions, { ignored: Object.keys(BULLMQ_OPTIONS) }) }

export const fileQueueOptions: Schema<FileQueueOptions> = {
  ...queueOptions, dataDir: required(text({ filled: true, backends: ['file'] })), durability,
}

export const JOB_STATES: readonly JobState[] = ['waiting', 'active', 'completed', 'failed', 'delayed', 'paused']

export const jobQuery: Schema<JobQuery, 'state' | 'offset'> = {
  state: withDefault([...JOB_STATES], list(oneOf(JOB_STATES))), limit: whole(), offset: withDefault(0, whole()),
}
