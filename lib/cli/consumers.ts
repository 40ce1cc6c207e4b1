import { callSync } from '../native'
import { NventError } from '../errors'
import type { JobState } from '../types'
import { iso, lasting, local, UsageError } from './output'
import type { Output } from './output'
import { openQueues } from './source'
import type { Source, Where } from './source'

const STATES: JobState[] = ['active', 'waiting', 'paused', 'delayed', 'failed', 'completed']

export async function listJobs(at: Where, out: Output, args: { queue?: string, status?: string, limit: number, offset: number }): Promise<void> {
  if (at.redis !== undefined) throw new UsageError('jobs: a native queue is in a directory; those on Redis are BullMQ\'s')
  const queues = openQueues(at)
  if (!queues) throw new NventError('NVENT_NOT_FOUND', `${at.dir}: there are no queues here; say where they are with --dir`)
  const { reader } = queues
  const counts: Array<{ queue: string, counts: Record<string, number> }> = JSON.parse(callSync(() => reader.queues()))
  if (args.queue === undefined && args.status === undefined) {
    if (out.json) return out.rows(counts)
    if (counts.length === 0) return out.line('no queues')
    return out.table(['queue', ...STATES], counts.map(({ queue, counts }) => [queue, ...STATES.map(state => String(counts[state]))]))
  }
  if (args.queue !== undefined && !counts.some(({ queue }) => queue === args.queue)) {
    throw new NventError('NVENT_NOT_FOUND', `there is no queue ${JSON.stringify(args.queue)}; there are ${counts.map(({ queue }) => queue).join(', ') || 'none'}`)
  }
  const states = args.status?.split(',') ?? STATES
  const jobs: any[] = counts.filter(({ queue }) => args.queue === undefined || queue === args.queue).flatMap(({ queue }) => {
    const found: any[] = JSON.parse(callSync(() => reader.jobs(queue, states, args.offset, args.limit)))
    return found.map(job => ({ queue, ...job }))
  }).slice(0, args.limit)
  if (out.json) return out.rows(jobs)
  if (jobs.length === 0) return out.line('no jobs')
  await out.table(['job', 'name', 'state', 'attempts', 'created', 'took', 'reason'], jobs.map(job => [
    job.id, job.name, job.state, String(job.attemptsMade), local(job.timestamp), job.finishedOn && job.processedOn ? lasting(job.finishedOn - job.processedOn) : '', job.failedReason ?? '',
  ]), { 2: state => out.status(state) })
  if (jobs.length === args.limit) await out.line(out.style('dim', `for more: --offset ${args.offset + args.limit}`))
}

export async function listConsumers({ store }: Source, out: Output): Promise<void> {
  const consumers = await store.consumers()
  if (out.json) return out.rows(consumers)
  if (consumers.length === 0) return out.line('no consumers')
  await out.table(['consumer', 'position', 'lag', 'parked'], consumers.map(({ name, position, lag, parked }) => [name, position ?? '', String(lag), String(parked)]),
    { 3: count => Number(count) > 0 ? out.style('red', count) : count })
}

/** Checks that there is a consumer of a name. */
async function known({ store }: Source, consumer: string): Promise<void> {
  const names = (await store.consumers()).map(({ name }) => name)
  if (!names.includes(consumer)) {
    throw new NventError('NVENT_NOT_FOUND', `there is no consumer ${JSON.stringify(consumer)}; there are ${names.join(', ') || 'none'}`)
  }
}

export async function listParked(source: Source, out: Output, args: { consumer?: string, limit: number, after?: string }): Promise<void> {
  if (args.consumer !== undefined) await known(source, args.consumer)
  if (args.after !== undefined && args.consumer === undefined) throw new UsageError('--after: say of which consumer')
  const names = args.consumer === undefined ? (await source.store.consumers()).filter(({ parked }) => parked > 0).map(({ name }) => name) : [args.consumer]
  const events = []
  for (const consumer of names) {
    const page = await source.store.parked(consumer, { limit: args.limit - events.length, ...args.after === undefined ? {} : { after: args.after } })
    events.push(...page.map(event => ({ consumer, ...event })))
    if (events.length >= args.limit) break
  }
  if (out.json) return out.rows(events.map(({ parkedAt, ...event }) => ({ ...event, parkedAt: iso(parkedAt) })))
  if (events.length === 0) return out.line('nothing is parked')
  await out.table(['consumer', 'position', 'subject', 'type', 'attempts', 'parked', 'reason'], events.map(({ consumer, position, subject, event, attempts, parkedAt, reason }) => [
    consumer, position, subject, event.type, String(attempts), local(parkedAt), reason,
  ]))
  await out.line(out.style('dim', `to deliver them again: nvent-native replay ${names.length === 1 ? names[0] : '<consumer>'} <position> … or --all`))
}

export async function replay(source: Source, out: Output, args: { consumer: string, positions: string[], all: boolean }): Promise<void> {
  await known(source, args.consumer)
  const replayed = await source.store.replay(args.consumer, args.all ? undefined : args.positions)
  if (out.json) return out.rows([{ consumer: args.consumer, replayed }])
  const when = source.kind === 'redis' ? 'the process that has the consumer delivers them within 3 s, or the next one that starts' : 'they are delivered when the application starts'
  await out.line(`${replayed} ${replayed === 1 ? 'event' : 'events'} to be delivered again: ${when}`)
}
