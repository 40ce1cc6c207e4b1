import { FLOW, orderFlow, STEPS, type Step } from '#shared/order'

export interface OrderJob {
  id: string
  name: string
  data: { flowId: string, input: Record<string, unknown> }
  attemptsMade: number
  opts: { attempts?: number }
}

export const subjectOf = (runId: string) => `nq:flow:${runId}`
export const INDEX = `nq:flows:${FLOW}`

const emits: Record<Step, string[]> = {
  validate: orderFlow.entry!.emits!,
  ...Object.fromEntries(STEPS.slice(1).map(step => [step, orderFlow.steps[step]!.emits ?? []])),
} as Record<Step, string[]>

/** Duration of each step in milliseconds, plus or minus half. */
const effort: Record<Step, number> = { validate: 250, charge: 700, reserve: 450, ship: 550, notify: 200 }

/**
 * Runs one step of an order. A job may run twice (the process was killed before the queue stored its end), so the
 * step first reads which events the run already has, and appends only those that are missing.
 */
export async function runStep(step: Step, job: OrderJob): Promise<void> {
  const store = useStoreAdapter()
  const runId = job.data.flowId
  const subject = subjectOf(runId)
  const attempt = job.attemptsMade + 1
  const append = (event: { type: string, data?: unknown }) => store.append(subject, {
    runId,
    flowName: FLOW,
    stepName: step,
    stepId: `${runId}__${step}__attempt-${attempt}`,
    attempt,
    sentAt: preciseNow(),
    ...event,
  })

  if (step === 'validate') await ensureStarted(runId)
  const past = (await store.read(subject)).filter(event => event.stepName === step)
  if (past.some(event => event.type === 'step.completed')) return

  await append({ type: 'step.started' })
  await sleep(effort[step] * (0.5 + luck(runId, step)))

  if (step === 'charge' && attempt === 1 && luck(runId, 'card') < 0.12) {
    await append({ type: 'step.failed', data: { error: 'The bank did not answer' } })
    await append({ type: 'step.retry' })
    throw new Error('The bank did not answer')
  }
  for (const name of emits[step]) {
    if (past.some(event => event.type === 'emit' && event.data.name === name)) continue
    await append({ type: 'emit', data: { name, payload: { by: step } } })
  }
  await append({ type: 'step.completed' })
}

/** Starts a run: enqueues its entry step and appends its first event; the wiring does the rest. */
export async function startOrder(): Promise<string> {
  const runId = crypto.randomUUID()
  await useQueueAdapter().enqueue('orders', {
    name: 'validate',
    data: { flowId: runId, flowName: FLOW, input: {} },
    opts: { jobId: `${runId}__validate` },
  })
  await ensureStarted(runId)
  return runId
}

/** Appends `flow.start` if the run has no event yet. The entry step calls it again, in case the process died after the enqueue. */
async function ensureStarted(runId: string): Promise<void> {
  const start = { type: 'flow.start', runId, flowName: FLOW, sentAt: preciseNow() }
  await useStoreAdapter().stream.append(subjectOf(runId), start, { expectedLastId: null }).catch((error) => {
    if (error.code !== 'NVENT_CONFLICT') throw error
  })
}

/** Returns the time since the epoch in milliseconds, with a fraction. */
export const preciseNow = () => performance.timeOrigin + performance.now()

const sleep = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

/** Returns a number from 0 to 1 that depends only on the run, so that a repeated job behaves the same. */
function luck(runId: string, salt: string): number {
  let hash = 2166136261
  for (const char of runId + salt) hash = Math.imul(hash ^ char.charCodeAt(0), 16777619)
  return (hash >>> 8) / 2 ** 24
}
