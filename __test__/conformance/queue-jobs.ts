import { expect, it } from 'vitest'
import { gate, Inbox, until } from '../support/until'
import { odd, throughJson } from '../support/values'
import type { QueueContext } from './queue'

const none = { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: 0 }

export function jobs(context: QueueContext): void {
  it('enqueues an id once, whether the job waits, runs or has ended', async () => {
    const { queue, add, work, collect } = context
    const [completed, calls, go] = [collect('completed'), new Inbox(), gate()]
    expect(await add({ jobId: 'x' }, { jobId: 'x' })).toEqual(['x', 'x'])
    expect(await queue.getJobCounts('q')).toEqual({ ...none, waiting: 1 })
    work((job) => {
      calls.take(job)
      return go.opened
    })
    await calls.atLeast(1)
    expect(await add({ jobId: 'x' })).toEqual(['x'])
    expect(await queue.getJobCounts('q')).toEqual({ ...none, active: 1 })
    go.open()
    await completed.atLeast(1)
    expect(await add({ jobId: 'x' })).toEqual(['x'])
    expect(await queue.getJobCounts('q')).toEqual({ ...none, completed: 1 })
    await context.roundTrip()
    expect(calls.items).toHaveLength(1)
  })

  it('keeps the ids of one queue apart from those of another', async () => {
    const { queue, add } = context
    await add({ jobId: 'x' })
    await queue.enqueue('other', { name: 'b', data: 2, opts: { jobId: 'x' } })
    expect(await queue.getJob('q', 'x')).toMatchObject({ name: 'a' })
    expect(await queue.getJob('other', 'x')).toMatchObject({ name: 'b', data: 2 })
  })

  it('gives every job without an id one of its own', async () => {
    const ids = await context.add(...Array.from({ length: 20 }, () => ({})))
    expect(new Set(ids).size).toBe(20)
  })

  it('shows a job in each of its states', async () => {
    const { queue, add, work, collect } = context
    const completed = collect('completed')
    await queue.enqueue('q', { name: 'a', data: { n: [1] }, opts: { jobId: 'x', attempts: 2 } })
    const waiting = (await queue.getJob('q', 'x'))!
    expect(waiting).toMatchObject({ id: 'x', name: 'a', data: { n: [1] }, state: 'waiting', attemptsMade: 0 })
    expect(waiting).not.toHaveProperty('processedOn')
    work(() => ({ sum: 1 }))
    await completed.atLeast(1)
    const done = (await queue.getJob('q', 'x'))!
    expect(done).toMatchObject({ state: 'completed', returnvalue: { sum: 1 }, attemptsMade: 1, timestamp: waiting.timestamp })
    expect(done.processedOn).toBeGreaterThanOrEqual(done.timestamp!)
    expect(done.finishedOn).toBeGreaterThanOrEqual(done.processedOn!)
    expect(await queue.getJob('q', 'y')).toBeNull()
    expect(await queue.getJob('never seen', 'x')).toBeNull()
    expect(await add({ jobId: 'x' })).toEqual(['x'])
  })

  it.each(odd)('passes %s to the handler and back as JSON does', async (_what, value) => {
    const { queue, work, collect } = context
    const [completed, given] = [collect('completed'), new Inbox()]
    work((job) => {
      given.take(job.data)
      return value
    })
    const id = await queue.enqueue('q', { name: 'a', data: value })
    const expected = throughJson(value)
    expect((await completed.atLeast(1))[0].returnvalue).toEqual(expected)
    expect(given.items).toEqual([expected])
    expect(await queue.getJob('q', id)).toMatchObject({ data: expected, returnvalue: expected })
  })

  it('runs jobs without priority first, then those of lower numbers, each in order', async () => {
    const { add, work, collect } = context
    const [completed, order] = [collect('completed'), new Inbox()]
    await add({ jobId: '9', priority: 9 }, { jobId: '1', priority: 1 }, { jobId: '5a', priority: 5 }, { jobId: '5b', priority: 5 }, { jobId: 'none-a' }, { jobId: 'none-b' })
    work(job => order.take(job.id))
    await completed.atLeast(6)
    expect(order.items).toEqual(['none-a', 'none-b', '1', '5a', '5b', '9'])
  })

  it('runs a lifo job before those that wait already', async () => {
    const { add, work, collect } = context
    const [completed, order] = [collect('completed'), new Inbox()]
    await add({ jobId: 'c' }, { jobId: 'b', lifo: true }, { jobId: 'a', lifo: true }, { jobId: 'd' })
    work(job => order.take(job.id))
    await completed.atLeast(4)
    expect(order.items).toEqual(['a', 'b', 'c', 'd'])
  })

  it('holds a delayed job back, and the others not', async () => {
    const { queue, add, work, collect } = context
    const [delayed, completed] = [collect('delayed'), collect('completed')]
    await add({ jobId: 'later', delay: 100 }, { jobId: 'now' }, { jobId: 'tomorrow', delay: 86_400_000 })
    work(() => {})
    await completed.atLeast(2)
    expect(completed.items.map(event => event.jobId)).toEqual(['now', 'later'])
    expect(delayed.items).toMatchObject([{ jobId: 'later', delay: 100 }, { jobId: 'tomorrow', delay: 86_400_000 }])
    const { timestamp, processedOn } = (await queue.getJob('q', 'later'))!
    expect(processedOn! - timestamp!).toBeGreaterThanOrEqual(100)
    expect(await queue.getJobCounts('q')).toEqual({ ...none, completed: 2, delayed: 1 })
  })

  it('keeps as many ended jobs as configured', async () => {
    const { queue, add, work, collect } = context
    const [completed, failed] = [collect('completed'), collect('failed')]
    work((job) => { if (job.id.startsWith('bad')) throw new Error('bad') })
    const ids = (prefix: string): string[] => Array.from({ length: 5 }, (_, n) => `${prefix}${n}`)
    await add(...ids('good').map(jobId => ({ jobId, removeOnComplete: 2 })), ...ids('bad').map(jobId => ({ jobId, removeOnFail: 3 })))
    await add({ jobId: 'none', removeOnComplete: true }, { jobId: 'bad-none', removeOnFail: true })
    await Promise.all([completed.atLeast(6), failed.atLeast(6)])
    const kept = async (state: 'completed' | 'failed'): Promise<string[]> => (await queue.getJobs('q', { state: [state] })).map(job => job.id)
    expect(await kept('completed')).toEqual(['good4', 'good3'])
    expect(await kept('failed')).toEqual(['bad4', 'bad3', 'bad2'])
    expect(await queue.getJobCounts('q')).toEqual({ ...none, completed: 2, failed: 3 })
    // An id that is not kept is free.
    await add({ jobId: 'none' })
    expect(await completed.atLeast(7)).toHaveLength(7)
  })

  it('keeps ended jobs only as long as configured', async () => {
    const { queue, add, work, collect } = context
    const completed = collect('completed')
    work(() => {})
    await add({ jobId: 'old', removeOnComplete: { age: 3_600, count: 5 } })
    await completed.atLeast(1)
    await until('a later millisecond', async () => (await queue.getJob('q', 'old'))!.finishedOn! < Date.now())
    await add({ jobId: 'new', removeOnComplete: { age: 0 } })
    await completed.atLeast(2)
    expect((await queue.getJobs('q')).map(job => job.id)).toEqual(['new'])
  })

  it('takes options that a job does not have from defaultJobOptions', async () => {
    const queue = context.another({ defaultJobOptions: { attempts: 4, removeOnComplete: true } })
    const [completed, given] = [new Inbox(), new Inbox()]
    queue.on('defaults', 'completed', completed.take)
    queue.registerWorker('defaults', 'a', async job => given.take(job.opts.attempts))
    queue.startProcessingQueue('defaults')
    await queue.enqueue('defaults', { name: 'a', data: 1 })
    await queue.enqueue('defaults', { name: 'a', data: 1, opts: { attempts: 2, jobId: 'kept', removeOnComplete: false } })
    await completed.atLeast(2)
    expect(given.items).toEqual([4, 2])
    expect((await queue.getJobs('defaults')).map(job => job.id)).toEqual(['kept'])
  })

  it('pages through what runs next, and through what has ended from the newest on', async () => {
    const { queue, add, work, collect } = context
    const completed = collect('completed')
    await add(...['d0', 'd1', 'd2', 'd3', 'd4'].map(jobId => ({ jobId })))
    work(() => {})
    await completed.atLeast(5)
    for (let n = 0; n < 5; n++) await queue.enqueue('q', { name: 'nobody', data: n, opts: { jobId: `w${n}`, priority: 10 - n } })
    const page = async (query?: Parameters<typeof queue.getJobs>[1]): Promise<string[]> => (await queue.getJobs('q', query)).map(job => job.id)
    expect(await page({ state: ['waiting'], offset: 1, limit: 2 })).toEqual(['w3', 'w2'])
    expect(await page({ state: ['completed'], limit: 2 })).toEqual(['d4', 'd3'])
    expect(await page({ state: ['waiting', 'completed'], offset: 3, limit: 4 })).toEqual(['w1', 'w0', 'd4', 'd3'])
    expect(await page({ state: ['failed'] })).toEqual([])
    expect(await page({ limit: 0 })).toEqual([])
    expect(await page({ offset: 10 })).toEqual([])
    expect(await page()).toHaveLength(10)
    expect(await queue.getJobs('never seen')).toEqual([])
    expect(await queue.getJobCounts('never seen')).toEqual(none)
  })

  it('removes a running job and ignores its outcome', async () => {
    const { queue, add, work, collect, state } = context
    const [completed, begun, go] = [collect('completed'), new Inbox(), gate()]
    await add({ jobId: 'x' }, { jobId: 'y' }, { jobId: 'z', delay: 86_400_000 })
    work((job) => {
      begun.take(job.id)
      return go.opened
    })
    await begun.atLeast(1)
    expect([await queue.removeJob('q', 'x'), await queue.removeJob('q', 'z'), await queue.removeJob('q', 'x'), await queue.removeJob('nowhere', 'y')])
      .toEqual([true, true, false, false])
    expect(await queue.getJobCounts('q')).toEqual({ ...none, waiting: 1 })
    go.open()
    await completed.atLeast(1)
    expect(completed.items).toMatchObject([{ jobId: 'y' }])
    expect(await state('x')).toBeUndefined()
  })

  it('does not call the handler of a job that was removed before', async () => {
    const { queue, add, work, collect } = context
    const [completed, late, removed] = [collect('completed'), new Inbox(), new Set<string>()]
    work((job) => {
      if (removed.has(job.id)) late.take(job.id)
    })
    for (let n = 0; n < 50; n++) {
      // It is handed out by then, and its handler is called in a later turn.
      await add({ jobId: `x${n}` })
      if (await queue.removeJob('q', `x${n}`)) removed.add(`x${n}`)
    }
    await add({ jobId: 'last' })
    await until('the last one is done', () => completed.items.some(event => event.jobId === 'last'))
    expect([removed.size > 0, late.items]).toEqual([true, []])
    expect(queue.stats()).toMatchObject({ running: 0 })
    expect(await queue.getJobCounts('q')).toMatchObject({ active: 0, waiting: 0 })
  })

  it('publishes each change with its fields', async () => {
    const { queue, add, work, collect } = context
    const [waiting, active, progress, completed, failed] = (['waiting', 'active', 'progress', 'completed', 'failed'] as const).map(collect) as [Inbox, Inbox, Inbox, Inbox, Inbox]
    const elsewhere = new Inbox()
    queue.on('elsewhere', 'waiting', elsewhere.take)
    await add({ jobId: 'x' }, { jobId: 'y' })
    work(async (job, ctx) => {
      if (job.id === 'y') throw new Error('no luck')
      await ctx.progress(40)
      return [1]
    })
    await Promise.all([completed.atLeast(1), failed.atLeast(1)])
    const [x, y] = ['x', 'y'].map(jobId => ({ jobId, name: 'a', attemptsMade: 0 }))
    expect(waiting.items).toMatchObject([x, y])
    expect(waiting.items[0].job).toMatchObject({ id: 'x', name: 'a', data: { of: 'x' }, state: 'waiting' })
    expect(active.items).toEqual([x, y])
    expect(progress.items).toEqual([{ ...x, progress: 40 }])
    expect(completed.items).toEqual([{ ...x, attemptsMade: 1, returnvalue: [1] }])
    expect(failed.items).toEqual([{ ...y, attemptsMade: 1, maxAttempts: 1, failedReason: 'no luck' }])
    expect(await queue.getJob('q', 'x')).toMatchObject({ progress: 40 })
    expect(elsewhere.items).toEqual([])
  })

  it('delivers nothing to a listener that was removed', async () => {
    const { queue, add, collect } = context
    const [ended, other] = [new Inbox(), collect('waiting')]
    const off = queue.on('q', 'waiting', ended.take)
    await add({ jobId: 'x' })
    await ended.atLeast(1)
    off()
    off()
    queue.on('q', 'waiting', ended.take)()
    await add({ jobId: 'y' })
    await other.atLeast(2)
    expect(ended.items).toHaveLength(1)
  })

  it('starts nothing while it is paused, and goes on when resumed', async () => {
    const { queue, add, work, collect, state, roundTrip } = context
    const [paused, completed] = [collect('paused'), collect('completed')]
    work(() => {})
    expect(await queue.isPaused('q')).toBe(false)
    await queue.pause('q')
    await queue.pause('q')
    expect(await queue.isPaused('q')).toBe(true)
    await add({ jobId: 'x' })
    await roundTrip()
    expect(await state('x')).toBe('paused')
    expect(await queue.getJobCounts('q')).toEqual({ ...none, paused: 1 })
    await queue.resume('q')
    await completed.atLeast(1)
    expect(await queue.isPaused('q')).toBe(false)
    await until('the event', () => paused.items.length)
    expect(paused.items).toEqual([{ queue: 'q' }])
  })
}
