/** What the inspector's page asks for (`views`) and does (`actions`). */
import { prefix } from '#nvent-native/inspector'
import { useQueueAdapter, useStoreAdapter } from '#imports'
import type { H3Event } from 'h3'
import { cancelFlow, listFlows, NventError, retryRun, runState, streamRun } from 'nvent-native/native'
import type { EventRecord, IndexEntry, JobState, ListedFlow } from 'nvent-native/native'
import { literal } from '../../../lib/glob.js'
import { sendEvents } from '../sse.js'
import { followHead } from './head.js'

export type Parameters = Record<string, unknown>

const STATUSES = ['running', 'completed', 'failed', 'canceled']
const STATES: JobState[] = ['waiting', 'active', 'delayed', 'completed', 'failed', 'paused']
/** Entries of a page, at most. */
const MAX_PAGE = 500
/** An event of more characters comes without its data, which is asked for alone. */
const MAX_EVENT = 16_384
/** Pages of subjects that a search by the beginning of an id reads, at most: on Redis most of them are empty. */
const MAX_SEARCH_PAGES = 20
const MAX_FOUND = 50
/** How long a count is good: so many times what it took, and at least this long, in ms. Counting by status reads every entry. */
const COUNT_AGE = 2_000
const COUNT_REST = 20
/** How long an answer waits for a count, in ms: the page asks again. */
const COUNT_PATIENCE = 200

export interface RunRow { id: string, flow: string, metadata: Record<string, any> }

export const views = {
  async overview() {
    const [store, queue, flows] = await Promise.all([useStoreAdapter().health(), healthOfQueue(), flowsInUse()])
    return { store, queue, canAct: prefix === undefined, flows: flows.map(({ id, steps }) => ({ id, steps })) }
  },

  /** Returns the number of runs of each flow, by status; null where that is still being counted. */
  async counts() {
    const flows = await flowsInUse()
    return Promise.all(flows.map(async ({ id, runIndex }) => {
      const [total, ...counts] = await Promise.all([count(runIndex), ...STATUSES.map(status => soon(count(runIndex, status)))])
      return { flow: id, total, statuses: Object.fromEntries(STATUSES.map((status, i) => [status, counts[i] ?? null])) }
    }))
  },

  /** Returns a page of runs, newest first, over one flow or all of them. The cursor has each flow's offset. */
  async runs({ flow, status, cursor, limit }: Parameters) {
    const flows = (await flowsInUse()).filter(({ id }) => !flow || id === flow)
    const offsets = readCursor(cursor)
    const size = pageSize(limit)
    const filter = status ? { status: requiredText('status', status) } : undefined
    const pages = await Promise.all(flows.map(async ({ id, runIndex }) => {
      const entries = await useStoreAdapter().index.read(runIndex, { offset: offsets[id] ?? 0, limit: size + 1, ...filter ? { filter } : {} })
      return entries.map(entry => ({ entry, flow: id }))
    }))
    const merged = pages.flat().sort((a, b) => b.entry.score - a.entry.score || (a.entry.id < b.entry.id ? -1 : 1))
    const taken = merged.slice(0, size)
    const next = { ...offsets }
    for (const { flow } of taken) next[flow] = (next[flow] ?? 0) + 1
    return { runs: taken.map(({ entry, flow }) => row(flow, entry)), cursor: merged.length > size ? JSON.stringify(next) : null }
  },

  /** Returns the runs whose id is, or begins with, a text. */
  async search({ q }: Parameters): Promise<RunRow[]> {
    const flows = await flowsInUse()
    const query = requiredText('q', q)
    const found = new Map<string, RunRow>()
    const look = (id: string) => Promise.all(flows.map(async (flow) => {
      const entry = await useStoreAdapter().index.get(flow.runIndex, id)
      if (entry) found.set(`${flow.id} ${id}`, row(flow.id, entry))
    }))
    await look(query)
    const subjects = [...new Set(flows.map(({ id, runSubject }) => runSubject.replaceAll('{flowName}', () => id)))]
    for (const subject of subjects) {
      const [before, after] = subject.split('{runId}') as [string, string]
      let cursor: string | null = null
      for (let page = 0; page < MAX_SEARCH_PAGES && found.size < MAX_FOUND; page++) {
        const pattern = `${literal(before + query)}*${literal(after)}`
        const found = await useStoreAdapter().subjects(pattern, cursor)
        for (const subject of found.subjects.slice(0, MAX_FOUND)) await look(subject.slice(before.length, subject.length - after.length))
        cursor = found.cursor
        if (cursor === null) break
      }
    }
    return [...found.values()].sort((a, b) => (b.metadata.startedAt ?? 0) - (a.metadata.startedAt ?? 0)).slice(0, MAX_FOUND)
  },

  async run({ flow, id }: Parameters) {
    const { runIndex, steps } = await located(flow)
    const entry = await useStoreAdapter().index.get(runIndex, requiredText('id', id))
    return { entry: entry && row(flow as string, entry), steps }
  },

  /** Returns a page of a run's log. Data of large events is left out. */
  async events({ flow, id, after, limit }: Parameters) {
    const events = await useStoreAdapter().stream.read(await subjectOf(flow, id), {
      limit: pageSize(limit), ...after ? { after: requiredText('after', after) } : {},
    })
    return events.map(withoutLargeData)
  },

  /** Returns one event, whole. */
  async event({ flow, id, event }: Parameters) {
    const ts = Number(requiredText('event', event).split('-')[0])
    const events = await useStoreAdapter().stream.read(await subjectOf(flow, id), Number.isSafeInteger(ts) ? { after: `${ts - 1}-0`, limit: MAX_PAGE * 10 } : {})
    const found = events.find(other => other.id === event)
    if (!found) throw new NventError('NVENT_NOT_FOUND', 'the log has no such event')
    return found
  },

  /** Returns the state of a run after an event of its log. */
  async state({ flow, id, until }: Parameters) {
    const subject = await subjectOf(flow, id)
    return runState(flow as string, id as string, { store: useStoreAdapter(), subject, ...until ? { until: requiredText('until', until) } : {} })
  },

  /** Sends what comes into a run's log from now on. */
  async follow({ flow, id }: Parameters, event: H3Event) {
    const subject = await subjectOf(flow, id)
    return sendEvents(event, request => streamRun(id as string, request, { store: useStoreAdapter(), subject }))
  },

  async queues() {
    const queue = useQueueAdapter()
    const names = [...new Set([...(await flowsInUse()).flatMap(({ steps }) => steps.map(step => step.queue)), ...workingQueues()])].sort()
    return Promise.all(names.map(async name => ({ name, counts: await queue.getJobCounts(name), paused: await queue.isPaused(name) })))
  },

  async jobs({ queue, state, offset, limit }: Parameters) {
    const states = state ? [requiredText('state', state) as JobState] : STATES
    const from = offset ? Number(offset) : 0
    if (!Number.isSafeInteger(from) || from < 0) throw new NventError('NVENT_INVALID', 'offset: expected a whole number from 0')
    const jobs = await useQueueAdapter().getJobs(requiredText('queue', queue), { state: states, offset: from, limit: pageSize(limit) })
    return jobs.map(job => JSON.stringify(job).length > MAX_EVENT ? { ...job, data: undefined, returnvalue: undefined, isLarge: true } : job)
  },

  consumers: () => useStoreAdapter().consumers(),

  async parked({ consumer, after, limit }: Parameters) {
    const parked = await useStoreAdapter().parked(requiredText('consumer', consumer), {
      limit: pageSize(limit), ...after ? { after: requiredText('after', after) } : {},
    })
    return parked.map(entry => ({ ...entry, event: withoutLargeData(entry.event) }))
  },

  /** Notifies the page that something was stored. */
  async live(_: Parameters, event: H3Event) {
    return sendEvents(event, request => followHead(useStoreAdapter(), request.signal))
  },
}

export const actions = {
  'run/cancel': async ({ flow, id }: Parameters) => ({ done: await cancelFlow(requiredText('flow', flow), requiredText('id', id), 'Cancelled in the inspector') }),
  'run/retry': async ({ flow, id }: Parameters) => ({ done: await retryRun(requiredText('flow', flow), requiredText('id', id)) }),
  /** Replays the events at these positions, or all that are parked. */
  'parked/replay': async ({ consumer, positions }: Parameters) => {
    if (positions !== undefined && !Array.isArray(positions)) throw new NventError('NVENT_INVALID', 'positions: expected an array')
    return { replayed: await useStoreAdapter().replay(requiredText('consumer', consumer), positions?.map((position, i) => requiredText(`positions[${i}]`, position))) }
  },
  'job/retry': async ({ queue, id }: Parameters) => ({ done: await useQueueAdapter().retryJob(requiredText('queue', queue), requiredText('id', id)) }),
}

/** Resolves with null where a value takes longer. */
const soon = async (value: Promise<number>): Promise<number | null> => {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<null>(resolve => timer = setTimeout(resolve, COUNT_PATIENCE, null))
  return Promise.race([value, late]).finally(() => clearTimeout(timer))
}

/** Returns the flows: those of the running registry, or those in nvent's index. */
async function flowsInUse(): Promise<ListedFlow[]> {
  if (prefix === undefined) return listFlows()
  const flows = await useStoreAdapter().index.read(`${prefix}:flows`, { limit: 1_000 })
  return flows.map(({ id }) => ({ id, runIndex: `${prefix}:flow:runs:${id}`, runSubject: `${prefix}:flow:run:{runId}`, steps: [] }))
}

async function located(flow: unknown): Promise<ListedFlow> {
  const id = requiredText('flow', flow)
  const found = (await flowsInUse()).find(other => other.id === id)
  if (!found) throw new NventError('NVENT_NOT_FOUND', `there is no flow ${JSON.stringify(id)}`)
  return found
}

async function subjectOf(flow: unknown, runId: unknown): Promise<string> {
  const { id, runSubject } = await located(flow)
  const run = requiredText('id', runId)
  return runSubject.replaceAll('{flowName}', () => id).replaceAll('{runId}', () => run)
}

/** Returns the health of the queue, which one that is not this package's may not have. */
async function healthOfQueue() {
  return useQueueAdapter().health?.() ?? { ok: true, backend: 'other' }
}

/** Returns the queues that have a worker in this process. */
function workingQueues(): string[] {
  return (useQueueAdapter() as unknown as { queues?(): string[] }).queues?.() ?? []
}

const counted = new Map<string, { until: number, count: Promise<number> }>()

function count(index: string, status?: string): Promise<number> {
  const key = JSON.stringify([index, status])
  const known = counted.get(key)
  if (known && Date.now() < known.until) return known.count
  const begin = Date.now()
  const entry = { until: Infinity, count: useStoreAdapter().index.count(index, status === undefined ? {} : { filter: { status } }) }
  counted.set(key, entry)
  entry.count.then(
    () => entry.until = Date.now() + Math.max(COUNT_AGE, (Date.now() - begin) * COUNT_REST),
    () => counted.delete(key),
  )
  return entry.count
}

const row = (flow: string, { id, metadata = {} }: IndexEntry): RunRow => {
  const { emittedEvents: _, awaitingSteps: __, ...shown } = metadata
  return { id, flow, metadata: shown }
}

function withoutLargeData(event: EventRecord): EventRecord {
  const size = JSON.stringify(event.data)?.length ?? 0
  if (size <= MAX_EVENT) return event
  const { data, ...rest } = event
  return { ...rest, data: { name: data?.name, error: data?.error === undefined ? undefined : String(data.error).slice(0, 1_000) }, dataSize: size }
}

function readCursor(cursor: unknown): Record<string, number> {
  if (!cursor) return {}
  try {
    const offsets = Object.entries(JSON.parse(cursor as string) as object)
    if (offsets.every(([, offset]) => Number.isSafeInteger(offset) && offset >= 0)) return Object.fromEntries(offsets)
  }
  catch {
    // Not one of ours.
  }
  throw new NventError('NVENT_INVALID', 'cursor: not usable')
}

function pageSize(limit: unknown): number {
  const size = limit === undefined ? 100 : Number(limit)
  if (!Number.isInteger(size) || size < 1) throw new NventError('NVENT_INVALID', 'limit: expected a whole number from 1')
  return Math.min(size, MAX_PAGE)
}

function requiredText(name: string, value: unknown): string {
  if (typeof value !== 'string' || value === '') throw new NventError('NVENT_INVALID', `${name}: expected a text`)
  return value
}
