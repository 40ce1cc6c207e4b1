import { expect, it } from 'vitest'
import { gate, Inbox } from '../support/until'
import type { QueueContext } from './queue'
import { runsAFlow } from './queue-flow'

export function workers(context: QueueContext): void {
  it('runs a worker from its registration on, with what waited', async () => {
    const { queue, add, collect } = context
    const completed = collect('completed')
    await add({ jobId: 'before' })
    queue.registerWorker('q', 'a', async job => job.id)
    await add({ jobId: 'after' })
    await completed.atLeast(2)
    expect(completed.items.map(event => event.returnvalue)).toEqual(['before', 'after'])
  })

  it('holds the workers that are registered together until processing is started', async () => {
    const { queue, add, collect, state, roundTrip } = context
    const [completed, order] = [collect('completed'), new Inbox()]
    await add({ jobId: 'before' })
    const { holdWorkers } = queue as unknown as { holdWorkers(isHeld: boolean): void }
    holdWorkers.call(queue, true)
    queue.registerWorker('q', 'a', async job => order.take(job.id))
    holdWorkers.call(queue, false)
    await add({ jobId: 'after' })
    await roundTrip()
    expect([order.items, await state('before'), await state('after')]).toEqual([[], 'waiting', 'waiting'])
    queue.startProcessingQueue('q')
    await completed.atLeast(2)
    expect(order.items).toEqual(['before', 'after'])
  })

  it('counts what it does, and says that it is well', async () => {
    const { queue, add, work, collect } = context
    const [completed, failed] = [collect('completed'), collect('failed')]
    work((job) => { if (job.id === 'bad') throw new Error('bad') })
    await add({ jobId: 'good' }, { jobId: 'bad' })
    await Promise.all([completed.atLeast(1), failed.atLeast(1)])
    expect(queue.stats()).toMatchObject({ enqueued: 2, started: 2, completed: 1, failed: 1, running: 0, workers: 1, handlerErrors: 0 })
    expect(await queue.health()).toEqual({ ok: true, backend: context.capabilities.durable ? 'file' : 'memory' })
    await queue.close()
    expect(await queue.health()).toMatchObject({ ok: false, detail: expect.stringMatching(/closed/) })
  })

  it('tries a failed job once more when asked', async () => {
    const { queue, add, work, collect } = context
    const [completed, failed] = [collect('completed'), collect('failed')]
    work((job) => { if (job.attemptsMade === 0) throw new Error('not yet') })
    await add({ jobId: 'x' })
    await failed.atLeast(1)
    expect([await queue.retryJob('q', 'x'), await queue.retryJob('q', 'unknown')]).toEqual([true, false])
    expect(await completed.atLeast(1)).toMatchObject([{ jobId: 'x', attemptsMade: 2 }])
    expect(await queue.retryJob('q', 'x')).toBe(false)
  })

  it('starts a job only after its enqueuer has continued', async () => {
    const { queue, work, collect } = context
    const [completed, order] = [collect('completed'), new Inbox<string>()]
    work(job => order.take(`begins ${job.id}`), 50)
    const rounds = Array.from({ length: 400 }, (_, n) => String(n))
    /** As an application calls it: through functions of its own, each of which continues a moment later. */
    const enqueue = async (jobId: string, layers: number): Promise<void> => {
      if (layers > 0) await enqueue(jobId, layers - 1)
      else await queue.enqueue('q', { name: 'a', data: null, opts: { jobId } })
    }
    const begin = async (jobId: string): Promise<void> => {
      await enqueue(jobId, Number(jobId) % 20)
      order.take(`goes on ${jobId}`)
    }
    // One by one, so that a free place is there at once; then all together.
    for (const jobId of rounds.slice(0, 200)) await begin(jobId)
    await Promise.all(rounds.slice(200).map(begin))
    await completed.atLeast(rounds.length)
    for (const id of rounds) {
      expect(order.items.indexOf(`begins ${id}`), id).toBeGreaterThan(order.items.indexOf(`goes on ${id}`))
    }
  })

  it('passes the job to its worker as nvent reads it', async () => {
    const { queue, work, collect } = context
    const [completed, given] = [collect('completed'), new Inbox()]
    work(given.take)
    await queue.enqueue('q', { name: 'a', data: { n: 1 }, opts: { jobId: 'x' } })
    await queue.enqueue('q', { name: 'a', data: null, opts: { jobId: 'y', attempts: 3 } })
    await completed.atLeast(2)
    expect(given.items[0]).toMatchObject({ id: 'x', name: 'a', data: { n: 1 }, attemptsMade: 0, opts: { attempts: 1 } })
    expect(given.items[1]).toMatchObject({ id: 'y', name: 'a', data: null, attemptsMade: 0, opts: { attempts: 3 } })
  })

  it('runs exactly as many of a queue at a time as its first worker said', async () => {
    const { queue, add, work, collect, roundTrip } = context
    const completed = collect('completed')
    const ends = new Inbox<() => void>()
    let [running, most] = [0, 0]
    const handler = async (): Promise<void> => {
      const { opened, open } = gate()
      most = Math.max(most, ++running)
      ends.take(open)
      await opened
      running -= 1
    }
    work(handler, 3)
    queue.registerWorker('q', 'b', handler, { concurrency: 50 })
    await add(...Array.from({ length: 6 }, () => ({})))
    for (let n = 0; n < 6; n++) await queue.enqueue('q', { name: 'b', data: n })
    await ends.atLeast(3)
    await roundTrip()
    expect(ends.items).toHaveLength(3)
    for (let n = 0; n < 12; n++) (await ends.atLeast(n + 1))[n]!()
    await completed.atLeast(12)
    expect(most).toBe(3)
  })

  it('keeps a job waiting whose name has no worker, and runs the others', async () => {
    const { queue, add, work, collect, state } = context
    const completed = collect('completed')
    await queue.enqueue('q', { name: 'nobody', data: 1, opts: { jobId: 'first' } })
    await add({ jobId: 'second' })
    work(() => {})
    await completed.atLeast(1)
    expect([await state('first'), await state('second')]).toEqual(['waiting', 'completed'])
    queue.registerWorker('q', 'nobody', async () => 'found')
    expect((await completed.atLeast(2))[1]).toMatchObject({ jobId: 'first', returnvalue: 'found' })
  })

  it('removes a job whose handler awaits, and its id can be used again', async () => {
    const { queue, add, work, collect, state } = context
    const [completed, calls] = [collect('completed'), new Inbox()]
    work((job) => {
      calls.take(job.data)
      return { awaiting: calls.items.length === 1 }
    })
    await add({ jobId: 'x' }, { jobId: 'y' })
    await completed.atLeast(1)
    expect(completed.items).toMatchObject([{ jobId: 'y' }])
    expect(await state('x')).toBeUndefined()
    await add({ jobId: 'x' })
    await completed.atLeast(2)
    expect(await queue.getJob('q', 'x')).toMatchObject({ state: 'completed', returnvalue: { awaiting: false } })
    expect(calls.items).toHaveLength(3)
  })

  it('calls no handler once pause has resolved', async () => {
    const { queue, add, work, collect } = context
    const [active, completed, begun] = [collect('active'), collect('completed'), new Inbox()]
    work(job => begun.take(job.id), 600)
    const ids = Array.from({ length: 600 }, (_, n) => String(n))
    const added = add(...ids.map(jobId => ({ jobId })))
    await queue.pause('q')
    const before = begun.items.length
    await added
    await context.roundTrip()
    expect(begun.items).toHaveLength(before)
    const counts = await queue.getJobCounts('q')
    expect(counts.paused + counts.completed).toBe(600)
    await queue.resume('q')
    await completed.atLeast(600)
    expect(new Set(begun.items).size).toBe(600)
    expect(begun.items).toHaveLength(600)
    expect(active.items.length).toBeGreaterThanOrEqual(600)
  })

  it('gives the jobs of a worker that is registered again to the new one, and keeps nothing of the old', async () => {
    const { queue, add, collect } = context
    const [completed, go] = [collect('completed'), gate()]
    const register = (version: number): void => queue.registerWorker('q', 'a', async () => {
      await go.opened
      return version
    }, { concurrency: 3 })
    register(0)
    queue.startProcessingQueue('q')
    await add({ jobId: 'first' })
    for (let version = 1; version <= 100; version++) register(version)
    await add({ jobId: 'second' })
    go.open()
    await completed.atLeast(2)
    expect((await queue.getJob('q', 'second'))!.returnvalue).toBe(100)
    expect((queue as any).subscriptions.size).toBeLessThanOrEqual(4)
  })

  it('waits for resume where a worker does not run by itself', async () => {
    const { queue, add, collect, roundTrip } = context
    const completed = collect('completed')
    queue.registerWorker('q', 'a', async () => {}, { autorun: false })
    queue.startProcessingQueue('q')
    await add({ jobId: 'x' })
    await roundTrip()
    expect(completed.items).toEqual([])
    await queue.resume('q')
    await completed.atLeast(1)
  })

  it('lets a handler enqueue and read in its own queue', async () => {
    const { queue, add, work, collect } = context
    const completed = collect('completed')
    work(async (job) => {
      if (job.id === 'parent') await add({ jobId: 'child' })
      return (await queue.getJob('q', job.id))!.state
    })
    await add({ jobId: 'parent' })
    expect(await completed.atLeast(2)).toMatchObject([{ jobId: 'parent', returnvalue: 'active' }, { jobId: 'child', returnvalue: 'active' }])
  })

  it('runs a flow from its first step to its last', () => runsAFlow(context.another()))
}
