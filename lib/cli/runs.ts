import { setTimeout as delay } from 'node:timers/promises'
import { literal } from '../glob'
import { callSync, storeCall } from '../native'
import type { EventRecord } from '../types'
import { iso, lasting, local } from './output'
import type { Output } from './output'
import { NventError } from '../errors'
import { openQueues } from './source'
import type { Source, Where } from './source'

/** How often a directory that another process has open is read again, in ms. */
const POLL_INTERVAL = 250

const END: Record<string, string> = { 'flow.completed': 'completed', 'flow.failed': 'failed', 'flow.cancel': 'canceled', 'flow.retry': 'running' }

/** An index of runs, and where their events are. */
interface RunIndex { key: string, flow: string, subject: (runId: string) => string }

/** Returns the indexes of runs: `nq:flows:{flow}`, and `{prefix}:flow:runs:{flow}` where nvent wrote them. */
async function runIndexes({ store }: Source): Promise<RunIndex[]> {
  const found: RunIndex[] = []
  for (const pattern of ['nq:flows:*', '*:flow:runs:*']) {
    let cursor: string | null = null
    do {
      const at: string | null = cursor
      const page: { subjects: string[], cursor: string | null } = await storeCall(() => store.native.indexKeys(pattern, at ?? undefined))
      for (const key of page.subjects) {
        const [, prefix, flow] = /^(.*?):flow:runs:(.*)$/.exec(key) ?? []
        if (key.startsWith('nq:flows:')) found.push({ key, flow: key.slice(9), subject: id => `nq:flow:${id}` })
        else if (flow !== undefined) found.push({ key, flow, subject: id => `${prefix}:flow:run:${id}` })
      }
      cursor = page.cursor
    } while (cursor !== null)
  }
  return [...new Map(found.map(index => [index.key, index])).values()]
}

const time = (value: unknown): number | undefined => {
  const ms = typeof value === 'string' ? Date.parse(value) : Number(value)
  return value === undefined || value === null || !Number.isFinite(ms) ? undefined : ms
}

export async function listRuns(source: Source, out: Output, args: { flow?: string, status?: string, limit: number, offset: number }): Promise<void> {
  const all = await runIndexes(source)
  const indexes = args.flow === undefined ? all : all.filter(({ flow }) => flow === args.flow)
  if (args.flow !== undefined && indexes.length === 0) {
    throw new NventError('NVENT_NOT_FOUND', `there are no runs of flow ${JSON.stringify(args.flow)}; there are runs of ${all.map(({ flow }) => flow).join(', ') || 'none'}`)
  }
  const filter = args.status === undefined ? {} : { filter: { status: args.status.split(',') } }
  const pages = await Promise.all(indexes.map(async ({ key, flow }) =>
    (await source.store.index.read(key, { limit: args.offset + args.limit, ...filter })).map(entry => ({ flow, ...entry }))))
  const runs = pages.flat().sort((a, b) => b.score - a.score).slice(args.offset, args.offset + args.limit).map(({ id, flow, score, metadata: m }) => {
    const [startedAt, completedAt, lastActivityAt] = [time(m['startedAt']) ?? score, time(m['completedAt']), time(m['lastActivityAt'])]
    return { runId: id, flow, status: String(m['status'] ?? ''), startedAt, completedAt, lastActivityAt, steps: m['stepCount'], completedSteps: m['completedSteps'], error: m['error'] }
  })
  if (out.json) {
    return out.rows(runs.map(run => ({ ...run, startedAt: iso(run.startedAt), completedAt: iso(run.completedAt), lastActivityAt: iso(run.lastActivityAt) })))
  }
  if (runs.length === 0) return out.line('no runs')
  await out.table(['run', 'flow', 'status', 'started', 'took', 'steps', 'error'], runs.map(run => [
    run.runId, run.flow, run.status, local(run.startedAt), lasting((run.completedAt ?? Date.now()) - run.startedAt), [run.completedSteps, run.steps].filter(n => n !== undefined).join('/'), text(run.error),
  ]), { 2: status => out.status(status) })
  if (runs.length === args.limit) await out.line(out.style('dim', `for more: --offset ${args.offset + args.limit}`))
}

const text = (value: unknown): string => value === undefined || value === null ? '' : typeof value === 'string' ? value : (value as any)?.message ?? JSON.stringify(value)

interface Step { step: string, status: string, attempts: number, startedAt?: number, ms?: number, error?: string }

/** Folds the events of a run into what there is to say of it. */
export function summary(events: EventRecord[]): { status: string, flow: string | undefined, startedAt: number | undefined, endedAt: number | undefined, error: string | undefined, steps: Step[] } {
  const steps = new Map<string, Step>()
  let [status, endedAt, error]: [string, number | undefined, string | undefined] = ['running', undefined, undefined]
  for (const event of events) {
    const name = event.stepName
    if (END[event.type]) {
      status = END[event.type]!
      endedAt = status === 'running' ? undefined : event.ts
      error = status === 'running' ? undefined : text(event.data?.error ?? event.data?.reason) || undefined
    }
    if (!name || !event.type.startsWith('step.')) continue
    const step = steps.get(name) ?? { step: name, status: 'waiting', attempts: 0 }
    steps.set(name, step)
    if (event.type === 'step.started') Object.assign(step, { status: 'active', attempts: Math.max(step.attempts + 1, Number(event['attempt']) || 0), startedAt: event.ts, ms: undefined })
    if (event.type === 'step.retry') step.status = 'retrying'
    if (event.type === 'step.completed' || event.type === 'step.failed') {
      step.status = event.type.slice(5)
      step.ms = step.startedAt === undefined ? undefined : event.ts - step.startedAt
    }
    if (event.data?.error !== undefined) step.error = text(event.data.error)
    if (event.type === 'step.completed') delete step.error
  }
  const start = events.find(event => event.type === 'flow.start')
  return { status, flow: start?.flowName ?? events[0]?.flowName, startedAt: start?.ts ?? events[0]?.ts, endedAt, error, steps: [...steps.values()] }
}

/** Finds the subject of a run. */
async function subjectOf(source: Source, runId: string): Promise<string> {
  const candidates = new Set(['nq:flow', ...(await runIndexes(source)).map(index => index.subject('').slice(0, -1))])
  for (const base of candidates) {
    const subject = `${base}:${runId}`
    if ((await source.store.read(subject, { limit: 1 })).length > 0) return subject
  }
  if ((await source.store.read(runId, { limit: 1 })).length > 0) return runId
  throw new NventError('NVENT_NOT_FOUND', `there is no run ${JSON.stringify(runId)}; \`nvent-native runs\` lists the runs there are, and \`nvent-native events <subject>\` reads any subject`)
}

/** Returns the jobs of a run that have not been completed. */
function jobsOf(at: Where, runId: string): Array<{ queue: string, id: string, state: string, attemptsMade: number, failedReason?: string }> {
  const queues = openQueues(at)
  if (!queues) return []
  const names: Array<{ queue: string }> = JSON.parse(callSync(() => queues.reader.queues()))
  return names.flatMap(({ queue }) => ['active', 'waiting', 'paused', 'delayed', 'failed'].flatMap((state) => {
    const jobs: any[] = JSON.parse(callSync(() => queues.reader.jobs(queue, [state], 0, 1_000)))
    return jobs.filter(job => String(job.id).startsWith(`${runId}__`) || job.data?.flowId === runId).map(job => ({ queue, id: job.id, state, attemptsMade: job.attemptsMade, failedReason: job.failedReason }))
  }))
}

/** Returns the parked events of a run. */
async function parkedOf({ store }: Source, runId: string): Promise<Array<{ consumer: string, position: string, type: string, attempts: number, reason: string }>> {
  const found = []
  for (const { name, parked } of await store.consumers()) {
    if (parked === 0) continue
    for (const { position, event, attempts, reason } of await store.parked(name, { limit: 1_000 })) {
      if (event.runId === runId) found.push({ consumer: name, position, type: event.type, attempts, reason })
    }
  }
  return found
}

const detail = (event: EventRecord): string => {
  const data = event.data
  if (event.type === 'emit') return `${data?.name ?? ''} ${data?.payload === undefined ? '' : JSON.stringify(data.payload)}`
  if (event.type === 'log') return `${data?.level ?? ''} ${data?.message ?? ''}`
  if (data !== undefined) return text(data?.error) || JSON.stringify(data)
  const { id: _id, ts: _ts, type: _type, runId: _run, flowName: _flow, stepName: _step, stepId: _stepId, ...rest } = event
  return Object.keys(rest).length === 0 ? '' : JSON.stringify(rest)
}

const asJson = (event: EventRecord): object => ({ ...event, time: iso(event.ts) })

async function printEvents(out: Output, events: EventRecord[]): Promise<void> {
  if (out.json) return out.rows(events.map(asJson))
  for (const event of events) {
    const room = Math.max(20, (process.stdout.columns ?? 120) - 1)
    const line = [local(event.ts).slice(11), event.type.padEnd(16), (event.stepName ?? '').padEnd(12), detail(event)].join('  ')
    // eslint-disable-next-line no-control-regex
    const plain = line.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trimEnd()
    await out.line(plain.length > room ? `${plain.slice(0, room - 1)}…` : plain)
  }
}

/** Yields what is appended to a subject after an id. */
async function follow(source: Source, subject: string, after: string | undefined, on: (events: EventRecord[]) => Promise<boolean>): Promise<void> {
  let [last, wake] = [after, (): void => {}]
  const subscription = source.kind === 'redis' ? await source.store.subscribe(literal(subject), () => wake()) : undefined
  try {
    for (;;) {
      const woken = new Promise<void>(resolve => wake = resolve)
      const events = await source.store.read(subject, { ...last === undefined ? {} : { after: last }, limit: 1_000 })
      if (events.length > 0) {
        last = events.at(-1)!.id
        if (await on(events)) return
        continue
      }
      const timer = new AbortController()
      // On Redis an event wakes it up; the interval is for what a lost connection missed.
      await Promise.race([woken, delay(subscription ? 5_000 : POLL_INTERVAL, undefined, { signal: timer.signal }).catch(() => {})])
      timer.abort()
    }
  }
  finally {
    await subscription?.unsubscribe()
  }
}

const isEnd = (event: EventRecord): boolean => END[event.type] !== undefined && event.type !== 'flow.retry'

export async function showRun(source: Source, at: Where, out: Output, { runId, follow: live }: { runId: string, follow: boolean }): Promise<void> {
  const subject = await subjectOf(source, runId)
  const events = await source.store.read(subject)
  const run = summary(events)
  const over = run.status !== 'running'
  if (out.json && live) {
    await printEvents(out, events)
    if (!over) await follow(source, subject, events.at(-1)?.id, async more => (await printEvents(out, more), more.some(isEnd)))
    return
  }
  const [jobs, parked] = [jobsOf(at, runId), await parkedOf(source, runId)]
  if (out.json) {
    const { startedAt, endedAt, steps, ...rest } = run
    return out.rows([{
      runId, subject, ...rest, startedAt: iso(startedAt), endedAt: iso(endedAt), steps: steps.map(step => ({ ...step, startedAt: iso(step.startedAt) })), jobs, parked, events: events.map(asJson),
    }])
  }
  await out.line(`${out.style('bold', runId)}  ${run.flow ?? ''}  ${out.status(run.status)}`)
  await out.line(`started ${local(run.startedAt)}, ${over ? `ended after ${lasting((run.endedAt ?? 0) - (run.startedAt ?? 0))}` : `running for ${lasting(Date.now() - (run.startedAt ?? 0))}, last event ${lasting(Date.now() - (events.at(-1)?.ts ?? 0))} ago`}`)
  if (run.error) await out.line(`error   ${out.style('red', run.error)}`)
  const section = async (title: string, head: string[], rows: string[][], status: number): Promise<void> => {
    if (rows.length === 0) return
    await out.line(`\n${out.style('bold', title)}`)
    await out.table(head, rows, { [status]: text => out.status(text) })
  }
  await section('Steps', ['step', 'status', 'attempts', 'took', 'error'], run.steps.map(step => [
    step.step, step.status, String(step.attempts), lasting(step.ms ?? (step.status === 'active' && step.startedAt !== undefined ? Date.now() - step.startedAt : undefined)), step.error ?? '',
  ]), 1)
  await section('Jobs that are not done', ['queue', 'job', 'state', 'attempts', 'reason'], jobs.map(job => [job.queue, job.id, job.state, String(job.attemptsMade), job.failedReason ?? '']), 2)
  await section('Parked events', ['consumer', 'position', 'type', 'attempts', 'reason'], parked.map(event => [event.consumer, event.position, event.type, String(event.attempts), event.reason]), -1)
  await out.line(`\n${out.style('bold', 'Events')}`)
  await printEvents(out, events)
  if (live && !over) {
    await follow(source, subject, events.at(-1)?.id, async more => (await printEvents(out, more), more.some(isEnd)))
    await out.line(out.status(summary(await source.store.read(subject)).status))
  }
}

export async function showEvents(source: Source, out: Output, args: { subject: string, follow: boolean, limit: number, type?: string, after?: string }): Promise<void> {
  const types = args.type === undefined ? {} : { types: args.type.split(',') }
  const events = args.after === undefined
    ? (await source.store.read(args.subject, { ...types, limit: args.limit, order: 'desc' })).reverse()
    : await source.store.read(args.subject, { ...types, limit: args.limit, after: args.after })
  await printEvents(out, events)
  if (!args.follow) {
    if (events.length === 0 && !out.json) await out.line(`no events in ${args.subject}`)
    return
  }
  const wanted = (event: EventRecord): boolean => types.types === undefined || types.types.includes(event.type)
  const last = events.at(-1)?.id ?? args.after ?? (await source.store.read(args.subject, { limit: 1, order: 'desc' }))[0]?.id
  await follow(source, args.subject, last, async more => (await printEvents(out, more.filter(wanted)), false))
}
