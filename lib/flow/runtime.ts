import { hasActiveSpan, maybeInSpan, tracing } from '../trace'
import type { SpanSpec } from '../trace'
import type { Flow, FlowDefinition, JobContext, QueueAdapter, StepContext, StepOptions, StoreAdapter, StreamAdapter, SubscriptionHandle } from '../types'
import { Warnings } from '../warn'
import { checkQueues, isFlow, queueOf } from './define'
import { appendOnce, whileRetryable } from './retry'
import { DEFAULT_KEEP_STATE_MS, StateWiring, stateOf } from './state'

/** Where runs and their index are. */
export interface Subjects { run: string, runIndex: string }

const DEFAULT_SUBJECTS: Subjects = { run: 'nq:flow:{runId}', runIndex: 'nq:flows:{flowName}' }
/** Events that end a run. */
export const TERMINAL_TYPES = ['flow.completed', 'flow.failed', 'flow.cancel']
/** Events from which follows whether a run is over: `flow.retry` undoes a failure. */
export const END_TYPES = [...TERMINAL_TYPES, 'flow.retry']

/** What a runtime connects. */
export interface RuntimeParts {
  flows: FlowDefinition[]
  store: StoreAdapter
  queue: QueueAdapter
  stream?: StreamAdapter
  subjects?: Partial<Subjects>
  /** ms */
  keepState?: number
  /** Claims the entry step of a run for this process. Resolves with false where another process has it. */
  claimEntry?: (flow: string, runId: string) => Promise<boolean>
  /** Has flow wiring continue a run that is stored and perhaps known to no process. */
  takeUp?: (flow: string, runId: string) => void
}

const key = Symbol.for('nvent-native.flow-runtimes')
const shared = globalThis as { [key]?: Set<FlowRuntime> }
/** The runtimes that are started in this JavaScript environment, however often the package was loaded. */
export const runtimes = shared[key] ??= new Set<FlowRuntime>()

interface StepJob { id: string, name: string, data: { flowId: string, input: any }, attemptsMade?: number, opts?: { attempts?: number, traceparent?: string } }

/** Runs the steps of flows as workers of a queue. */
export class FlowRuntime {
  readonly store: StoreAdapter
  readonly queue: QueueAdapter
  readonly subjects: Subjects
  readonly claimEntry: (flow: string, runId: string) => Promise<boolean>
  readonly takeUp: (flow: string, runId: string) => void
  private readonly flows: Map<string, FlowDefinition>
  private readonly stream: StreamAdapter | undefined
  private readonly state: StateWiring
  private readonly warnings = new Warnings('a flow')
  /** Attempts at work, by run. */
  private readonly attempts = new Map<string, Set<{ controller: AbortController, settled: Promise<void> }>>()
  private cancellations: Promise<SubscriptionHandle> | undefined

  constructor({ flows, store, queue, stream, subjects, keepState = DEFAULT_KEEP_STATE_MS, claimEntry = async () => true, takeUp = () => {} }: RuntimeParts) {
    this.claimEntry = claimEntry
    this.takeUp = takeUp
    this.store = store
    this.queue = queue
    this.stream = stream
    this.subjects = {
      run: subjects?.run ?? DEFAULT_SUBJECTS.run,
      runIndex: subjects?.runIndex ?? DEFAULT_SUBJECTS.runIndex,
    }
    // Native flow wiring has checked the definitions.
    this.flows = new Map(flows.map(flow => [flow.id, flow]))
    this.state = new StateWiring(store, name => this.runIndex(name), keepState, this.warnings.handlerFailed)
    checkQueues(flows)
  }

  flow(id: string): FlowDefinition | undefined {
    return this.flows.get(id)
  }

  /** Returns the definitions. */
  list(): FlowDefinition[] {
    return [...this.flows.values()]
  }

  subject(flowName: string, runId: string): string {
    return this.subjects.run.replaceAll('{runId}', () => runId).replaceAll('{flowName}', () => flowName)
  }

  runIndex(flowName: string): string {
    return this.subjects.runIndex.replaceAll('{flowName}', () => flowName)
  }

  /** Registers the steps as workers. Steps at work elsewhere are cancelled over the stream. */
  async start(): Promise<void> {
    if (runtimes.has(this)) return
    runtimes.add(this)
    const queues = new Set<string>()
    for (const flow of this.withHandlers()) {
      for (const [name, step] of Object.entries(flow.handlers)) {
        const queue = queueOf(flow, name)
        queues.add(queue)
        this.queue.registerWorker(
          queue, name, (job: StepJob, context?: Partial<JobContext>) => this.attempt(flow, name, step, job, context),
          { concurrency: step.concurrency ?? 1 },
        )
      }
    }
    if (queues.size === 0) return
    this.cancellations = this.stream?.subscribe('flow:event:*', ({ data }) => this.abort(data.runId), { filter: 'flow.cancel' })
    await this.cancellations
    for (const queue of queues) this.queue.startProcessingQueue(queue)
    this.state.start()
  }

  async stop(): Promise<void> {
    runtimes.delete(this)
    await this.state.stop()
    // A stream that was shut down before has ended its subscriptions.
    await this.cancellations?.then(handle => handle.unsubscribe()).catch(() => {})
  }

  /** Aborts the signals of a run's steps at work here. */
  abort(runId: string): void {
    for (const { controller } of this.attempts.get(runId) ?? []) controller.abort(new Error('the run was cancelled'))
  }

  /** Waits until no step of a run is at work here. */
  async idle(runId: string): Promise<void> {
    await Promise.all([...this.attempts.get(runId) ?? []].map(({ settled }) => settled))
  }

  /** Resolves with whether a run has no log: it was deleted. */
  private async isEmpty(subject: string, signal?: AbortSignal): Promise<boolean> {
    return (await whileRetryable(() => this.store.stream.read(subject, { limit: 1 }), signal)).length === 0
  }

  private withHandlers(): Flow[] {
    return this.list().filter(isFlow)
  }

  private async attempt(flow: Flow, name: string, step: StepOptions, job: StepJob, context?: Partial<JobContext>): Promise<null> {
    const { flowId: runId } = job.data
    const controller = new AbortController()
    let settle = (): void => {}
    const entry = { controller, settled: new Promise<void>(resolve => settle = resolve) }
    const running = this.attempts.get(runId) ?? new Set()
    this.attempts.set(runId, running.add(entry))
    try {
      await maybeInSpan(
        () => stepSpan(flow, name, job),
        () => this.runStep(flow, name, step, job, context?.signal ? AbortSignal.any([context.signal, controller.signal]) : controller.signal),
      )
      // The result is in the log. The queue gives some results a meaning of its own.
      return null
    }
    finally {
      running.delete(entry)
      if (running.size === 0) this.attempts.delete(runId)
      settle()
    }
  }

  private async runStep(flow: Flow, name: string, step: StepOptions, job: StepJob, signal: AbortSignal): Promise<void> {
    const { flowId: runId, input } = job.data
    const subject = this.subject(flow.id, runId)
    const types = ['flow.start', ...END_TYPES, 'step.started', 'step.completed']
    const past = await whileRetryable(() => this.store.stream.read(subject, { types }), signal)
    if (past.length === 0 && await this.isEmpty(subject, signal)) {
      // The run was deleted. Or the application has enqueued the entry step itself, before the start is stored.
      if (name !== flow.entry?.step || !await this.queue.getJob(queueOf(flow, name), job.id)) return
    }
    const end = past.findLast(event => END_TYPES.includes(event.type))
    const own = past.filter(event => event.stepName === name)
    // A job that runs again after a crash, or whose run was cancelled meanwhile.
    if ((end && end.type !== 'flow.retry') || own.some(event => event.type === 'step.completed')) return
    const attempt = own.filter(event => event.type === 'step.started').length + 1
    const base = { runId, flowName: flow.id, stepName: name, stepId: `${runId}__${name}__attempt-${attempt}`, attempt }
    let last = past.at(-1)?.id
    const publish = async (type: string, data: unknown): Promise<void> => {
      // What is appended to the log of a run that was deleted would be there when its id is used again.
      if (signal.aborted && await this.isEmpty(subject)) throw new Error('the run was deleted')
      last = (await appendOnce(this.store, subject, { type, ...base, data }, last, signal)).id
    }
    await publish('step.started', {})
    const stepContext: StepContext = {
      runId,
      flowId: flow.id,
      step: name,
      attempt,
      signal,
      emit: (event, payload) => publish('emit', { name: event, payload }),
      state: stateOf(this.store, flow.id, runId),
      log: (level, message, data) => publish('log', { level, message, data }),
    }
    try {
      const result = await step.run(input, stepContext)
      await publish('step.completed', { result })
    }
    catch (error) {
      const isLast = (job.attemptsMade ?? 0) + 1 >= (job.opts?.attempts ?? 1)
      const reason = messageOf(error)
      await publish('step.failed', { error: reason, willRetry: !isLast })
      if (!isLast) await publish('step.retry', { error: reason })
      throw error
    }
  }
}

/** Returns the span of a step: within the attempt of its job, or where the queue makes no spans, in the trace of the job. */
function stepSpan(flow: Flow, step: string, job: StepJob): SpanSpec {
  const traced = tracing()
  return {
    name: `step ${flow.id} ${step}`,
    kind: 'INTERNAL',
    attributes: { 'nvent.flow.name': flow.id, 'nvent.flow.run.id': job.data.flowId, 'nvent.flow.step': step },
    parent: traced && hasActiveSpan(traced) ? undefined : job.opts?.traceparent,
  }
}

/** Returns what an error says. A handler may have thrown anything, also what has no text. */
function messageOf(error: unknown): string {
  try {
    return String(error instanceof Error ? error.message : error)
  }
  catch {
    return 'the step threw a value that cannot be converted to text'
  }
}
