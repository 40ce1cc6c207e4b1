import { expect, it } from 'vitest'
import { gate, Inbox, until } from '../support/until'
import { noJson } from '../support/values'
import type { QueueContext } from './queue'

export function attempts(context: QueueContext): void {
  it('tries again without end where attempts is Infinity', async () => {
    const { queue, add, work, collect } = context
    const completed = collect('completed')
    work((job) => { if (job.attemptsMade < 30) throw new Error('not yet') })
    await add({ jobId: 'x', attempts: Infinity, timeout: Infinity, removeOnComplete: Infinity, removeOnFail: { count: Infinity, age: Infinity } })
    expect(await completed.atLeast(1)).toMatchObject([{ attemptsMade: 31 }])
    expect((await queue.getJob('q', 'x'))!.state).toBe('completed')
  })

  it('tries again until one attempt succeeds', async () => {
    const { queue, add, work, collect } = context
    const [completed, failed, made] = [collect('completed'), collect('failed'), new Inbox<number>()]
    work((job) => {
      made.take(job.attemptsMade)
      if (job.attemptsMade < 2) throw new Error('not yet')
      return 'at last'
    })
    await add({ jobId: 'x', attempts: 5 })
    await completed.atLeast(1)
    expect([made.items, failed.items]).toEqual([[0, 1, 2], []])
    const job = await queue.getJob('q', 'x')
    expect(job).toMatchObject({ state: 'completed', returnvalue: 'at last', attemptsMade: 3 })
    expect(job).not.toHaveProperty('failedReason')
  })

  it.each([
    ['a number', 5, [5, 5]],
    ['a fixed delay', { type: 'fixed', delay: 6 }, [6, 6]],
    ['an exponential one', { type: 'exponential', delay: 4 }, [4, 8]],
  ] as const)('waits between attempts as %s says, and fails after the last', async (_what, backoff, waits) => {
    const { queue, add, work, collect } = context
    const [delayed, failed] = [collect('delayed'), collect('failed')]
    work((job) => { throw new Error(`no luck ${job.attemptsMade}`) })
    await add({ jobId: 'x', attempts: 3, backoff })
    expect(await failed.atLeast(1)).toEqual([{ jobId: 'x', name: 'a', attemptsMade: 3, maxAttempts: 3, failedReason: 'no luck 2' }])
    expect(delayed.items.map(event => event.delay)).toEqual(waits)
    expect(await queue.getJob('q', 'x')).toMatchObject({ state: 'failed', failedReason: 'no luck 2', attemptsMade: 3 })
  })

  it('gives up the place of a handler that ignores its timeout, with a warning', async () => {
    const { queue, add, collect } = context
    const [completed, failed, calls] = [collect('completed'), collect('failed'), new Inbox()]
    const warnings = new Inbox<Error>()
    process.on('warning', warnings.take)
    queue.registerWorker('q', 'a', async (job) => {
      calls.take(job.attemptsMade)
      return job.id === 'stuck' ? new Promise(() => {}) : 'ran'
    }, { abandonAfter: 30 })
    queue.startProcessingQueue('q')
    await add({ jobId: 'stuck', timeout: 20, attempts: 2 }, { jobId: 'next' })
    await Promise.all([completed.atLeast(1), failed.atLeast(1)])
    expect(failed.items).toMatchObject([{ jobId: 'stuck', failedReason: 'timed out after 20 ms' }])
    expect(await queue.getJob('q', 'next')).toMatchObject({ state: 'completed', returnvalue: 'ran' })
    expect(calls.items).toHaveLength(3)
    await until('the warning', () => warnings.items.some(warning => /place was given/.test(warning.message)))
    process.off('warning', warnings.take)
  })

  it('keeps the place of an attempt that timed out until its handler has settled', async () => {
    const { queue, add, work, collect } = context
    const [failed, ends] = [collect('failed'), new Inbox<() => void>()]
    let [running, most] = [0, 0]
    const signals: AbortSignal[] = []
    work(async (_job, { signal }) => {
      most = Math.max(most, ++running)
      signals.push(signal)
      const { opened, open } = gate()
      ends.take(open)
      await opened
      running -= 1
    }, 2)
    await add({ jobId: 'x', timeout: 20, attempts: 2 }, { jobId: 'y', timeout: 20 }, { jobId: 'z', timeout: 20 })
    await ends.atLeast(2)
    await until('both to time out', () => signals.every(signal => signal.aborted))
    expect([signals[0]!.reason.name, ends.items.length, (await queue.getJobCounts('q')).waiting]).toEqual(['TimeoutError', 2, 1])
    for (let n = 0; n < 4; n++) {
      const end = (await ends.atLeast(n + 1))[n]!
      await until('its timeout', () => signals[n]!.aborted)
      end()
    }
    await failed.atLeast(3)
    expect(most).toBe(2)
  })

  it('aborts the signal of a job that is removed, and of those that close does not wait for', async () => {
    const { queue, add, work } = context
    const begun = new Inbox<AbortSignal>()
    work((_job, { signal }) => {
      begun.take(signal)
      return new Promise(resolve => signal.addEventListener('abort', resolve))
    })
    await add({ jobId: 'x' })
    const [signal] = await begun.atLeast(1)
    await queue.removeJob('q', 'x')
    await until('the signal', () => signal!.aborted)
    expect(signal!.reason.message).toMatch(/removed/)
  })

  it('a signal that a handler first reads after its job was removed is aborted', async () => {
    const { queue, add, work } = context
    const begun = new Inbox<{ readonly signal: AbortSignal }>()
    const { opened, open } = gate()
    work((_job, attempt) => {
      begun.take(attempt)
      return opened
    }, 2)
    await add({ jobId: 'x' })
    await begun.atLeast(1)
    await add({ jobId: 'y' })
    const [unread, read] = await begun.atLeast(2)
    const { signal } = read!
    for (const id of ['x', 'y']) await queue.removeJob('q', id)
    await until('the signal that was read', () => signal.aborted)
    expect([unread!.signal.aborted, unread!.signal.reason.name]).toEqual([true, 'AbortError'])
    open()
  })

  it('ignores what a handler returns after its timeout', async () => {
    const { queue, add, work, collect, roundTrip } = context
    const [failed, completed] = [collect('failed'), collect('completed')]
    let settle!: (value: string) => void
    work(() => new Promise(resolve => settle = resolve))
    await add({ jobId: 'x', timeout: 20 })
    await failed.atLeast(1)
    settle('late')
    await roundTrip()
    expect(await queue.getJob('q', 'x')).toMatchObject({ state: 'failed', failedReason: 'timed out after 20 ms' })
    expect(completed.items).toEqual([])
  })

  const unreadable = Object.defineProperty(new Error('x'), 'message', { get() { throw new Error('from the getter') } })
  it.each([
    ['an error', new TypeError('wrong'), 'wrong'],
    ['text', 'just text', 'just text'],
    ['undefined', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a symbol', Symbol('s'), 'Symbol(s)'],
    ['an object without prototype', Object.create(null), /./],
    ['an error whose message is no text', Object.assign(new Error('x'), { message: 5 }), '5'],
    ['an error whose message cannot be read', unreadable, /./],
    ['half a surrogate pair', new Error('half \uD800'), /half/],
  ] as const)('counts %s thrown at once, or rejected with, as a failure', async (_what, thrown, reason) => {
    const { queue, add, collect } = context
    const failed = collect('failed')
    queue.registerWorker('q', 'a', (job) => {
      if (job.id === 'sync') throw thrown
      return Promise.reject(thrown)
    })
    queue.startProcessingQueue('q')
    await add({ jobId: 'sync' }, { jobId: 'async' })
    for (const { failedReason } of await failed.atLeast(2)) {
      if (typeof reason === 'string') expect(failedReason).toBe(reason)
      else expect(failedReason).toMatch(reason)
    }
  })

  it.each(noJson)('counts %s as a result as a failure', async (_what, value) => {
    const { add, work, collect } = context
    const failed = collect('failed')
    work(() => value)
    await add({ jobId: 'x' })
    expect((await failed.atLeast(1))[0].failedReason).toMatch(/result/)
  })

  it('takes a handler that is not async, and no result as null', async () => {
    const { queue, add, collect } = context
    const completed = collect('completed')
    queue.registerWorker('q', 'a', ((job: any) => job.id === 'none' ? undefined : job.id) as any)
    queue.startProcessingQueue('q')
    await add({ jobId: 'none' }, { jobId: 'some' })
    expect((await completed.atLeast(2)).map(event => event.returnvalue)).toEqual([null, 'some'])
  })
}
