import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { options, text } from '../check'
import { invalid, NventError } from '../errors'
import { currentAdapter } from '../factory'
import { literal } from '../glob'
import { resultOptions, startFlowOptions } from '../options/wiring.js'
import type { EventRecord, Flow, FlowDefinition, FlowRun, NewEvent, RunEnd, StoreAdapter } from '../types'
import { NventStoreAdapter } from '../store'
import { jobOptionsOf, queueOf } from './define'
import { END_TYPES, FlowRuntime, runtimes, TERMINAL_TYPES } from './runtime'
import { whileRetryable } from './retry'
import { deleteState } from './state'
import { maybeInSpan } from '../trace'

/** How often a conditional append is tried while others append to the run. */
const MAX_CONFLICTS = 1_000
/** How long, in ms, `deleteRun` waits for steps at work and for the index to have the run's end. */
const SETTLE_TIMEOUT_MS = 5_000
const SETTLE_INTERVAL_MS = 10
/** Pauses between looks at the index for a run that has started, and how long that goes on, in ms: longer than a lease of flow wiring. */
const FIRST_PAUSE_MS = 1
const MAX_PAUSE_MS = 640
const INDEX_TIMEOUT_MS = 15_000

const STATUS: Record<string, RunEnd['status']> = { 'flow.completed': 'completed', 'flow.failed': 'failed', 'flow.cancel': 'canceled' }

/** A flow and what runs it. */
export interface Located { flow: FlowDefinition, runtime: FlowRuntime }

/** Finds a flow among those of running registries. A flow from `defineFlow` also works on the current adapters. */
export function locate(flow: Flow | string): Located {
  const id = typeof flow === 'string' ? text('flow', flow) : text('flow.id', flow?.id)
  for (const runtime of runtimes) {
    const known = runtime.flow(id)
    if (known) return { flow: known, runtime }
  }
  if (typeof flow === 'string') {
    throw new NventError('NVENT_NOT_FOUND', `flow ${JSON.stringify(id)} is in no running registry: start createWiringRegistry({ flow: { flows: [...] } }) first, or pass what defineFlow returned`)
  }
  return { flow, runtime: new FlowRuntime({ flows: [flow], store: currentAdapter('store'), queue: currentAdapter('queue') }) }
}

const jobId = (runId: string, step: string, retries: number): string => `${runId}__${step}${retries > 0 ? `__retry-${retries}` : ''}`

export async function startFlow<Input = any>(flow: Flow<Input> | string, input: Input, opts?: { runId?: string }): Promise<FlowRun> {
  const { runId = randomUUID() } = options('options', opts, startFlowOptions)
  const located = locate(flow)
  const { created } = await startRun(located, runId, input)
  const { runtime, flow: { id } } = located
  return { runId, created, result: opts => resultOf(runtime.store, runtime.subject(id, runId), opts) }
}

/**
 * Stores `flow.start`, with further fields where they are given, then enqueues the entry step. Starts nothing where the run
 * exists, and resolves with its `flow.start` then. `parent` is the trace context that the start continues.
 */
export async function startRun(located: Located, runId: string, input: unknown, fields: object = {}, parent?: unknown): Promise<{ created: boolean, start?: EventRecord | undefined }> {
  const { flow } = located
  if (!flow.entry) throw invalid(`flow ${JSON.stringify(flow.id)} has no entry: which step starts it?`)
  return maybeInSpan(
    () => ({ name: `start ${flow.id}`, kind: 'INTERNAL', attributes: { 'nvent.flow.name': flow.id, 'nvent.flow.run.id': runId }, parent }),
    async () => {
      const started = await start(located, runId, input, fields)
      await indexed(located, runId)
      return started
    },
  )
}

/**
 * Waits, where other processes use the store, until a run is in the index: from there one of them takes it over if this one is
 * killed. A run that another process stored, and was killed before this, is continued here.
 */
async function indexed(located: Located, runId: string): Promise<void> {
  const { flow, runtime } = located
  // Without flow wiring in this process, the entry of a run that it starts is not written.
  const { store } = runtime
  if (!(store instanceof NventStoreAdapter && store.isShared) || !runtimes.has(runtime)) return
  for (let pause = FIRST_PAUSE_MS, waited = 0; !await store.index.get(runtime.runIndex(flow.id), runId); pause = Math.min(pause * 2, MAX_PAUSE_MS)) {
    if (waited > INDEX_TIMEOUT_MS) {
      throw new NventError('NVENT_UNAVAILABLE', `the run ${JSON.stringify(runId)} is stored, and not taken up by flow wiring yet`, { retryable: true, maybeApplied: true })
    }
    if (pause === MAX_PAUSE_MS) {
      const start = await resumeStart(located, runtime.subject(flow.id, runId), runId, await runtime.claimEntry(flow.id, runId))
      // It was deleted.
      if (!start) return
      // Its processes may have been killed after the entry step, or the run, had ended in the log: no job leads to it then.
      runtime.takeUp(flow.id, runId)
    }
    await delay(pause)
    waited += pause
  }
}

async function start(located: Located, runId: string, input: unknown, fields: object): Promise<{ created: boolean, start?: EventRecord | undefined }> {
  const { flow, runtime } = located
  const subject = runtime.subject(flow.id, runId)
  const event = { type: 'flow.start', runId, flowName: flow.id, ...fields, data: { input } }
  // Takes effect before the run can be found by another process.
  const claim = runtime.claimEntry(flow.id, runId)
  // Reported where it is awaited; where the append fails before, that is.
  claim.catch(() => {})
  const created = await appendStart(located, subject, runId, event)
  const isClaimed = await claim
  if (!created) return { created: false, start: await resumeStart(located, subject, runId, isClaimed) }
  if (isClaimed) await enqueueEntry(located, runId, input, created.traceparent)
  return { created: true }
}

/**
 * Appends the start of a run, unless there is the run. A log without a start whose run is not in the index is that of no run: the
 * application, or what was late when a run of this id was deleted, has written it.
 */
async function appendStart({ flow, runtime }: Located, subject: string, runId: string, event: NewEvent): Promise<EventRecord | undefined> {
  const { store } = runtime
  let expectedLastId: string | null = null
  for (let conflicts = 0; ; conflicts++) {
    try {
      return await store.stream.append(subject, event, { expectedLastId })
    }
    catch (error) {
      if ((error as { code?: string } | undefined)?.code !== 'NVENT_CONFLICT') throw error
      if (conflicts >= MAX_CONFLICTS) throw error
    }
    const [start] = await store.stream.read(subject, { types: ['flow.start'], limit: 1 })
    if (start || await store.index.get(runtime.runIndex(flow.id), runId)) return
    const [last] = await store.stream.read(subject, { order: 'desc', limit: 1 })
    expectedLastId = last?.id ?? null
  }
}

async function enqueueEntry({ flow, runtime }: Located, runId: string, input: unknown, traceparent?: string): Promise<void> {
  const { step } = flow.entry!
  await runtime.queue.enqueue(queueOf(flow, step), {
    name: step,
    data: { flowId: runId, flowName: flow.id, input },
    opts: { ...jobOptionsOf(flow, step, jobId(runId, step, 0)), ...traceparent === undefined ? {} : { traceparent } },
  })
}

/** Enqueues the entry step of a run whose start was stored and perhaps never followed by its job, unless another process has it. Resolves with the start. */
async function resumeStart(located: Located, subject: string, runId: string, isClaimed: boolean): Promise<EventRecord | undefined> {
  const { step } = located.flow.entry!
  const types = ['flow.start', 'step.started', 'step.completed', 'step.failed', 'step.retry', ...END_TYPES]
  const past = await located.runtime.store.stream.read(subject, { types })
  const start = past.find(event => event.type === 'flow.start')
  const last = past.findLast(event => event.stepName === step)
  // A step that has begun may have been at work in a process that was killed, and whose claim this one has taken over. A job
  // that is there already is not enqueued again.
  const isOpen = !past.some(event => END_TYPES.includes(event.type)) && (!last || last.type === 'step.started')
  if (isClaimed && start && isOpen) await enqueueEntry(located, runId, start.data?.input, start.traceparent)
  return start
}

/** Returns how a run stands by its log: its end, or undefined while it is under way. */
async function endOf(store: StoreAdapter, subject: string): Promise<RunEnd | undefined> {
  const [last] = await store.stream.read(subject, { types: END_TYPES, order: 'desc', limit: 1 })
  if (!last || !TERMINAL_TYPES.includes(last.type)) return
  const error = last.data?.error ?? last.data?.reason
  return { status: STATUS[last.type]!, ...(error === undefined ? {} : { error: String(error) }) }
}

/** Resolves with the end of a run, from the log. Keeps the process alive while it waits. */
async function resultOf(store: StoreAdapter, subject: string, opts?: { signal?: AbortSignal, timeout?: number }): Promise<RunEnd> {
  const { signal, timeout } = options('options', opts, resultOptions)
  signal?.throwIfAborted()
  let resolve!: (end: RunEnd) => void
  let reject!: (error: unknown) => void
  const ended = new Promise<RunEnd>((...settle) => [resolve, reject] = settle)
  const keepAlive = setInterval(() => {}, 0x7FFFFFFF)
  const timer = timeout === undefined
    ? undefined
    : setTimeout(() => {
        reject(new NventError('NVENT_UNAVAILABLE', `the run in ${JSON.stringify(subject)} has not ended within ${timeout} ms`, { retryable: true }))
      }, timeout)
  const onAbort = (): void => reject(signal!.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  const look = async (): Promise<void> => {
    const end = await whileRetryable(() => endOf(store, subject), signal)
    if (end) resolve(end)
  }
  const interesting = (event: EventRecord): boolean => TERMINAL_TYPES.includes(event.type) || event.type === 'stream.gap'
  // First subscribed, then read, so that the end is in one of the two.
  const subscription = store.stream.subscribe(literal(subject), event => interesting(event) ? look().catch(reject) : undefined)
  try {
    await Promise.race([ended, subscription])
    await Promise.race([ended, look()])
    return await ended
  }
  finally {
    clearInterval(keepAlive)
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
    // A store that was closed meanwhile has ended its subscriptions.
    await subscription.then(({ unsubscribe }) => unsubscribe()).catch(() => {})
  }
}

/** Appends an event on the condition that the run's log still ends where `decide` read it. */
async function appendDecided(store: StoreAdapter, subject: string, decide: () => Promise<{ type: string, [field: string]: unknown } | undefined>): Promise<boolean> {
  for (let conflicts = 0; ; conflicts++) {
    const [last] = await store.stream.read(subject, { order: 'desc', limit: 1 })
    if (!last) return false
    const event = await decide()
    if (!event) return false
    try {
      await store.stream.append(subject, event, { expectedLastId: last.id })
      return true
    }
    catch (error) {
      if ((error as { code?: string }).code !== 'NVENT_CONFLICT' || conflicts >= MAX_CONFLICTS) throw error
    }
  }
}

/** Returns the ids of all jobs that a run may have, with their queues. */
async function jobsOf({ flow, runtime }: Located, subject: string, runId: string): Promise<Array<{ queue: string, id: string }>> {
  const retries = (await runtime.store.stream.read(subject, { types: ['flow.retry'] })).length
  const steps = [...new Set([...flow.entry ? [flow.entry.step] : [], ...Object.keys(flow.steps)])]
  return steps.flatMap(step => Array.from({ length: retries + 1 }, (_, n) => ({ queue: queueOf(flow, step), id: jobId(runId, step, n) })))
}

export async function cancelFlow(flow: Flow | string, runId: string, reason?: string): Promise<boolean> {
  text('runId', runId)
  if (reason !== undefined) text('reason', reason)
  const located = locate(flow)
  const { runtime, flow: { id } } = located
  const subject = runtime.subject(id, runId)
  const canceled = await appendDecided(runtime.store, subject, async () => await endOf(runtime.store, subject)
    ? undefined
    : { type: 'flow.cancel', runId, flowName: id, data: reason === undefined ? {} : { reason } })
  if (!canceled) return false
  for (const other of runtimes) other.abort(runId)
  await removeWaitingJobs(located, subject, runId)
  return true
}

/** Removes jobs that have not begun. Those at work see their signal aborted. */
async function removeWaitingJobs(located: Located, subject: string, runId: string): Promise<void> {
  const { queue } = located.runtime
  for (const { queue: name, id } of await jobsOf(located, subject, runId)) {
    const job = await queue.getJob(name, id)
    if (job && ['waiting', 'delayed', 'paused'].includes(job.state)) await queue.removeJob(name, id)
  }
}

export async function retryRun(flow: Flow | string, runId: string): Promise<boolean> {
  text('runId', runId)
  const { runtime, flow: { id } } = locate(flow)
  const subject = runtime.subject(id, runId)
  return appendDecided(runtime.store, subject, async () => (await endOf(runtime.store, subject))?.status === 'failed'
    ? { type: 'flow.retry', runId, flowName: id, data: {} }
    : undefined)
}

export async function deleteRun(flow: Flow | string, runId: string): Promise<boolean> {
  text('runId', runId)
  const located = locate(flow)
  const { runtime, flow: { id } } = located
  const { store, queue } = runtime
  const subject = runtime.subject(id, runId)
  const index = runtime.runIndex(id)
  await cancelFlow(flow, runId, 'deleted')
  const idle = Promise.all([...runtimes].map(other => other.idle(runId)))
  await Promise.race([idle, delay(SETTLE_TIMEOUT_MS, undefined, { ref: false })])
  // Flow wiring writes the end into the index a moment later: what is deleted before that would come back.
  for (const deadline = Date.now() + SETTLE_TIMEOUT_MS; Date.now() < deadline; await delay(SETTLE_INTERVAL_MS)) {
    if ((await store.index.get(index, runId))?.metadata.status !== 'running') break
  }
  for (const { queue: name, id } of await jobsOf(located, subject, runId)) await queue.removeJob(name, id)
  await deleteState(store, runId)
  const hadLog = await store.stream.delete(subject)
  // Last, so that a deletion that was interrupted can be found and repeated.
  const hadEntry = await store.index.delete(index, runId)
  return hadLog || hadEntry
}
