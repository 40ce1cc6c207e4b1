import { expect, it } from 'vitest'
import type { QueueAdapter } from 'nvent-native'
import { gate, Inbox, rejects } from '../support/until'
import type { QueueContext } from './queue'

const job = { name: 'a', data: 1 }
const everything: Array<[string, (queue: QueueAdapter) => unknown]> = [
  ['init', queue => queue.init()],
  ['enqueue', queue => queue.enqueue('q', job)],
  ['schedule', queue => queue.schedule('q', job, { cron: '* * * * *' })],
  ['getJob', queue => queue.getJob('q', 'x')],
  ['getJobs', queue => queue.getJobs('q')],
  ['getJobCounts', queue => queue.getJobCounts('q')],
  ['getScheduledJobs', queue => queue.getScheduledJobs('q')],
  ['removeScheduledJob', queue => queue.removeScheduledJob('x')],
  ['retryJob', queue => queue.retryJob('q', 'x')],
  ['removeJob', queue => queue.removeJob('q', 'x')],
  ['on', queue => queue.on('q', 'waiting', () => {})],
  ['isPaused', queue => queue.isPaused('q')],
  ['pause', queue => queue.pause('q')],
  ['resume', queue => queue.resume('q')],
  ['registerWorker', queue => queue.registerWorker('q', 'a', async () => {})],
  ['startProcessingQueue', queue => queue.startProcessingQueue('q')],
]

export function lifecycle(context: QueueContext): void {
  it('opens on first use, and init may be called before, after and twice', async () => {
    const { queue, state } = context
    await queue.enqueue('q', { ...job, opts: { jobId: 'x' } })
    await Promise.all([queue.init(), queue.init()])
    expect(await state('x')).toBe('waiting')
  })

  it('closes twice, at once and one after the other, and unused', async () => {
    const { queue } = context
    await queue.enqueue('q', job)
    await Promise.all([queue.close(), queue.close()])
    await queue.close()
    await context.another().close()
  })

  it.each(everything)('%s is refused after close', async (_name, call) => {
    await context.queue.close()
    await rejects(async () => call(context.queue), 'NVENT_CLOSED')
  })

  it('drain starts no further job, waits for running handlers, and goes on storing what is enqueued', async () => {
    const { queue, add, work, capabilities } = context
    const [begun, go] = [new Inbox(), gate()]
    work(async (job) => {
      begun.take(job.id)
      await go.opened
      await add({ jobId: 'next' })
    }, 2)
    await add({ jobId: 'runs' })
    await begun.atLeast(1)
    let drained = false
    const draining = (queue as QueueAdapter & { drain(): Promise<void> }).drain().then(() => drained = true)
    await add({ jobId: 'late' })
    expect(drained).toBe(false)
    go.open()
    await draining
    await add({ jobId: 'after' })
    expect(begun.items).toEqual(['runs'])
    await queue.close()
    const later = context.another()
    const states = await Promise.all(['runs', 'next', 'late', 'after'].map(async id => (await later.getJob('q', id))?.state))
    expect(states).toEqual(capabilities.durable ? ['completed', 'waiting', 'waiting', 'waiting'] : [undefined, undefined, undefined, undefined])
  })

  it('close waits for running handlers, starts no job and stores what is enqueued meanwhile', async () => {
    const { queue, add, work, collect, state, capabilities } = context
    const [begun, completed, go] = [new Inbox(), collect('completed'), gate()]
    work((job) => {
      begun.take(job.id)
      return go.opened
    })
    await add({ jobId: 'runs' }, { jobId: 'waits' })
    await begun.atLeast(1)
    let closed = false
    const closing = queue.close().then(() => closed = true)
    await add({ jobId: 'late' })
    expect(await state('late')).toBe('waiting')
    await rejects(async () => queue.registerWorker('q', 'late', async () => {}), 'NVENT_CLOSED')
    await rejects(async () => queue.startProcessingQueue('q'), 'NVENT_CLOSED')
    const other = context.another()
    await other.enqueue('elsewhere', job)
    await other.getJobCounts('elsewhere')
    expect(closed).toBe(false)
    go.open()
    await closing
    expect(begun.items).toEqual(['runs'])
    expect(completed.items).toMatchObject([{ jobId: 'runs' }])
    const later = context.another()
    const states = await Promise.all(['runs', 'waits', 'late'].map(async id => (await later.getJob('q', id))?.state))
    expect(states).toEqual(capabilities.durable ? ['completed', 'waiting', 'waiting'] : [undefined, undefined, undefined])
  })

  it('takes what a handler enqueues while it closes, and runs it the next time', async () => {
    const { queue, add, work, collect, capabilities } = context
    const [begun, completed, failed, go] = [new Inbox(), collect('completed'), collect('failed'), gate()]
    work(async (job) => {
      begun.take(job.id)
      await go.opened
      await queue.enqueue('q', { name: 'a', data: 2, opts: { jobId: 'child' } })
      await queue.schedule('q', { name: 'a', data: 2, opts: { jobId: 'later' } }, { delay: 86_400_000 })
      return (await queue.getJob('q', 'child'))!.state
    })
    await add({ jobId: 'parent', attempts: 1 })
    await begun.atLeast(1)
    const closing = queue.close()
    go.open()
    await closing
    expect([completed.items, failed.items]).toMatchObject([[{ jobId: 'parent', returnvalue: 'waiting' }], []])
    await rejects(queue.enqueue('q', job), 'NVENT_CLOSED')
    if (!capabilities.durable) return
    const later = context.another()
    const ran = new Inbox()
    later.on('q', 'completed', ran.take)
    later.registerWorker('q', 'a', async given => given.data)
    later.startProcessingQueue('q')
    expect(await ran.atLeast(1)).toMatchObject([{ jobId: 'child', returnvalue: 2 }])
    expect((await later.getJob('q', 'later'))!.state).toBe('delayed')
  })

  it('delivers every event before it is closed', async () => {
    const { queue, add, collect } = context
    const waiting = collect('waiting')
    await Promise.all(Array.from({ length: 5_000 }, () => add({})))
    await queue.close()
    expect(waiting.items).toHaveLength(5_000)
  })

  it('finishes calls made before close', async () => {
    const { queue } = context
    const ids = Promise.all(Array.from({ length: 20 }, () => queue.enqueue('q', job)))
    const close = queue.close()
    expect(await ids).toHaveLength(20)
    await close
  })

  it('keeps jobs, pauses and schedules for a later adapter where it is durable', async () => {
    const { queue, add, work, collect, capabilities } = context
    const completed = collect('completed')
    work(() => 'done')
    await add({ jobId: 'ended' })
    await completed.atLeast(1)
    await queue.pause('q')
    await add({ jobId: 'waits', priority: 3 }, { jobId: 'later', delay: 86_400_000 })
    await queue.schedule('q', { ...job, opts: { jobId: 'hourly' } }, { cron: '0 * * * *' })
    const show = async (adapter: QueueAdapter): Promise<unknown> =>
      [await adapter.getJobs('q'), await adapter.getJobCounts('q'), await adapter.isPaused('q'), await adapter.getScheduledJobs('q')]
    const before = await show(queue)
    await queue.close()
    const later = context.another()
    if (!capabilities.durable) {
      expect(await show(later)).toEqual([[], { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: 0 }, false, []])
      return
    }
    expect(await show(later)).toEqual(before)
    const ran = new Inbox()
    later.on('q', 'completed', ran.take)
    later.registerWorker('q', 'a', async given => given.data)
    later.startProcessingQueue('q')
    await later.resume('q')
    expect(await ran.atLeast(1)).toMatchObject([{ jobId: 'waits', returnvalue: { of: 'waits' } }])
  })
}
