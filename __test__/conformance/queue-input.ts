import { expect, it } from 'vitest'
import { rejects, until } from '../support/until'
import { noJson, noNames, noObjects, unreadable } from '../support/values'
import type { QueueContext } from './queue'

export function badInput(context: QueueContext): void {
  const named: Array<[what: string, argument: string, call: (name: any) => unknown]> = [
    ['enqueue', 'queue', name => context.queue.enqueue(name, { name: 'a', data: 1 })],
    ['enqueue', 'name', name => context.queue.enqueue('q', { name, data: 1 })],
    ['schedule', 'queue', name => context.queue.schedule(name, { name: 'a', data: 1 }, { cron: '* * * * *' })],
    ['getJob', 'queue', name => context.queue.getJob(name, 'x')],
    ['getJob', 'id', id => context.queue.getJob('q', id)],
    ['getJobs', 'queue', name => context.queue.getJobs(name)],
    ['getJobCounts', 'queue', name => context.queue.getJobCounts(name)],
    ['retryJob', 'queue', name => context.queue.retryJob(name, 'x')],
    ['retryJob', 'jobId', id => context.queue.retryJob('q', id)],
    ['removeJob', 'queue', name => context.queue.removeJob(name, 'x')],
    ['removeJob', 'jobId', id => context.queue.removeJob('q', id)],
    ['removeScheduledJob', 'scheduleId', id => context.queue.removeScheduledJob(id)],
    ['isPaused', 'queue', name => context.queue.isPaused(name)],
    ['pause', 'queue', name => context.queue.pause(name)],
    ['resume', 'queue', name => context.queue.resume(name)],
    ['on', 'queue', name => context.queue.on(name, 'waiting', () => {})],
    ['registerWorker', 'queue', name => context.queue.registerWorker(name, 'a', async () => {})],
    ['registerWorker', 'jobName', name => context.queue.registerWorker('q', name, async () => {})],
    ['startProcessingQueue', 'queue', name => context.queue.startProcessingQueue(name)],
  ]
  it.each(named)('%s refuses what is no name as its %s', async (_method, argument, call) => {
    for (const name of noNames) await rejects(async () => call(name), 'NVENT_INVALID', new RegExp(`\\b${argument}\\b`))
  })

  it('refuses jobs and options that are no objects', async () => {
    const { queue } = context
    for (const value of noObjects as any[]) {
      await rejects(queue.enqueue('q', value), 'NVENT_INVALID', /job/)
      await rejects(queue.schedule('q', value), 'NVENT_INVALID', /job/)
      if (value === undefined || value === null) continue
      await rejects(queue.getJobs('q', value), 'NVENT_INVALID', /query/)
      await rejects(queue.schedule('q', { name: 'a', data: 1 }, value), 'NVENT_INVALID', /options/)
    }
    expect(await queue.getJobs('q')).toEqual([])
  })

  it('refuses jobs and options that cannot be read, or contain themselves', async () => {
    const { queue } = context
    const circle: any = { delay: 1 }
    circle.backoff = circle
    for (const value of [...unreadable, circle]) {
      await rejects(queue.enqueue('q', { name: 'a', data: 1, opts: value }), 'NVENT_INVALID', /job\.opts/)
      await rejects(queue.schedule('q', { name: 'a', data: 1 }, value), 'NVENT_INVALID', /options/)
      await rejects(async () => queue.registerWorker('q', 'a', async () => {}, value), 'NVENT_INVALID', /options/)
      await rejects(queue.getJobs('q', value), 'NVENT_INVALID', /query/)
      await rejects(queue.enqueue('q', value), 'NVENT_INVALID', /job/)
    }
    expect(await queue.getJobs('q')).toEqual([])
  })

  it.each(noJson)('refuses %s as data, with its path', async (_what, value, path) => {
    const { queue } = context
    const at = path ? new RegExp(`job\\.data${path.replaceAll(/[.[\]]/g, '\\$&')}`) : /job/
    await rejects(queue.enqueue('q', { name: 'a', data: value }), 'NVENT_INVALID', at)
    expect(await queue.getJobs('q')).toEqual([])
  })

  it.each<[string, any, RegExp]>([
    ['a misspelt option', { attemps: 3 }, /job\.opts\.attemps.*did you mean "attempts"/],
    ['no attempts', { attempts: 0 }, /job\.opts\.attempts/],
    ['half an attempt', { attempts: 1.5 }, /job\.opts\.attempts/],
    ['options of NaN', NaN, /job\.opts: expected an object/],
    ['options that are a function', () => ({ attempts: 3 }), /job\.opts: expected an object/],
    ['attempts of a function', { attempts: () => 3 }, /job\.opts\.attempts.*function/],
    ['a symbol as id', { jobId: Symbol('a') }, /job\.opts\.jobId.*symbol/],
    ['a delay of a function', { backoff: { type: 'fixed', delay: () => 3 } }, /job\.opts\.backoff\.delay.*function/],
    ['NaN attempts', { attempts: NaN }, /job\.opts\.attempts.*NaN/],
    ['attempts below any', { attempts: -Infinity }, /job\.opts\.attempts.*-Infinity/],
    ['a delay of NaN', { delay: NaN }, /job\.opts\.delay.*NaN/],
    ['an endless delay', { delay: Infinity }, /job\.opts\.delay.*Infinity/],
    ['an endless backoff', { backoff: Infinity }, /job\.opts\.backoff.*Infinity/],
    ['a backoff of NaN', { backoff: { type: 'fixed', delay: NaN } }, /job\.opts\.backoff\.delay.*NaN/],
    ['a priority of NaN', { priority: NaN }, /job\.opts\.priority.*NaN/],
    ['a timeout of NaN', { timeout: NaN }, /job\.opts\.timeout.*NaN/],
    ['NaN jobs to keep', { removeOnComplete: NaN }, /job\.opts\.removeOnComplete.*NaN/],
    ['an age of NaN', { removeOnFail: { age: NaN } }, /job\.opts\.removeOnFail\.age.*NaN/],
    ['a delay as text', { delay: '5' }, /job\.opts\.delay/],
    ['a delay before now', { delay: -1 }, /job\.opts\.delay/],
    ['a priority below none', { priority: -1 }, /job\.opts\.priority/],
    ['a timeout as text', { timeout: '1s' }, /job\.opts\.timeout/],
    ['a backoff of an unknown type', { backoff: { type: 'linear', delay: 1 } }, /job\.opts\.backoff\.type.*exponential/],
    ['a misspelt backoff', { backoff: { type: 'fixed', dely: 1 } }, /job\.opts\.backoff\.dely.*did you mean "delay"/],
    ['a misspelt way to keep', { removeOnFail: { cuont: 1 } }, /job\.opts\.removeOnFail\.cuont.*did you mean "count"/],
    ['an age as text', { removeOnFail: { age: '1h' } }, /job\.opts\.removeOnFail\.age/],
    ['too much jitter', { backoff: { type: 'fixed', delay: 1, jitter: 2 } }, /job\.opts\.backoff\.jitter/],
    ['a lifo that is none', { lifo: 1 }, /job\.opts\.lifo/],
    ['text for what to keep', { removeOnComplete: 'all' }, /job\.opts\.removeOnComplete/],
    ['fewer than none to keep', { removeOnFail: -1 }, /job\.opts\.removeOnFail/],
    ['an empty id', { jobId: '' }, /job\.opts\.jobId/],
    ['an id that is no text', { jobId: 5 }, /job\.opts\.jobId/],
    ['options that are none', 'fast', /job\.opts/],
  ])('refuses %s of a job', async (_what, opts, message) => {
    await rejects(context.queue.enqueue('q', { name: 'a', data: 1, opts }), 'NVENT_INVALID', message)
    expect(await context.queue.getJobs('q')).toEqual([])
  })

  it('ignores options that only BullMQ has, and warns of each once', async () => {
    const { queue, state } = context
    const foreign = {
      stackTraceLimit: 5, keepLogs: 3, sizeLimit: 10, timestamp: 1, repeat: { cron: '* * * * *' }, repeatJobKey: 'k', prevMillis: 1,
      parent: { id: 'p', queue: 'bull:p' }, failParentOnFailure: true, continueParentOnFailure: true, ignoreDependencyOnFailure: true,
      removeDependencyOnFailure: true, deduplication: { id: 'd' }, telemetry: { omitContext: true },
    }
    const warnings: any[] = []
    const take = (warning: any): unknown => warning.code === 'NVENT_IGNORED' && warnings.push(warning.message)
    process.on('warning', take)
    for (const jobId of ['x', 'y']) await queue.enqueue('q', { name: 'a', data: 1, opts: { jobId, attempts: 2, ...foreign } as any })
    await queue.schedule('q', { name: 'a', data: 1, opts: { jobId: 'z', ...foreign } as any }, { delay: 86_400_000 })
    const other = context.another({ defaultJobOptions: { keepLogs: 3, attempts: 4 } as any })
    await other.enqueue('defaults', { name: 'a', data: 1, opts: { jobId: 'w' } })
    await until('the warnings', () => warnings.length > Object.keys(foreign).length)
    process.off('warning', take)
    expect(warnings.map(message => message.split(' ')[0])).toEqual([...Object.keys(foreign).map(key => `job.opts.${key}`), 'defaultJobOptions.keepLogs'])
    expect(await Promise.all(['x', 'y', 'z'].map(state))).toEqual(['waiting', 'waiting', 'delayed'])
    expect((await queue.getJob('q', 'x') as any).opts).toEqual({ jobId: 'x', attempts: 2 })
    expect((await other.getJob('defaults', 'w') as any).opts).toEqual({ jobId: 'w', attempts: 4 })
  })

  it.each<[any, RegExp]>([
    [{ ofset: 1 }, /ofset.*did you mean "offset"/], [{ offset: -1 }, /offset/], [{ limit: 1.5 }, /limit/], [{ limit: '5' }, /limit/],
    [{ state: 'waiting' }, /state/], [{ state: ['wating'] }, /wating.*waiting/], [{ state: [5] }, /state\[0\]/],
  ])('getJobs refuses %j', async (query, message) => {
    await rejects(context.queue.getJobs('q', query), 'NVENT_INVALID', message)
  })

  it('refuses events, handlers and options of workers that are none, at once', async () => {
    const { queue } = context
    await rejects(() => queue.on('q', 'complete' as any, () => {}), 'NVENT_INVALID', /complete.*completed/)
    for (const handler of [undefined, null, {}, 'text'] as any[]) {
      await rejects(() => queue.on('q', 'waiting', handler), 'NVENT_INVALID', /callback/)
      await rejects(async () => queue.registerWorker('q', 'a', handler), 'NVENT_INVALID', /handler/)
    }
    for (const keepAlive of ['yes', 1] as any[]) {
      await rejects(async () => queue.registerWorker('q', 'a', async () => {}, { keepAlive }), 'NVENT_INVALID', /options\.keepAlive/)
    }
    for (const abandonAfter of [-1, NaN, Infinity, '3'] as any[]) {
      await rejects(async () => queue.registerWorker('q', 'a', async () => {}, { abandonAfter }), 'NVENT_INVALID', /options\.abandonAfter/)
    }
    for (const concurrency of [0, -1, 1.5, NaN, -Infinity, '3'] as any[]) {
      await rejects(async () => queue.registerWorker('q', 'a', async () => {}, { concurrency }), 'NVENT_INVALID', /options\.concurrency/)
    }
    await rejects(async () => queue.registerWorker('q', 'a', async () => {}, { autorun: 'no' as any }), 'NVENT_INVALID', /options\.autorun/)
  })

  it('refuses options of its own that it does not know', async () => {
    await rejects(() => context.another({ defaultJobOption: {} } as any), 'NVENT_INVALID', /defaultJobOption.*did you mean "defaultJobOptions"/)
    await rejects(() => context.another({ defaultJobOptions: { atempts: 2 } as any }), 'NVENT_INVALID', /defaultJobOptions\.atempts.*did you mean "attempts"/)
  })

  it('rejects rather than throws where it returns a promise', () => {
    for (const call of [() => context.queue.enqueue(1 as any, 1 as any), () => context.queue.getJobs({} as any), () => context.queue.pause('')]) {
      const promise = call()
      expect(promise).toBeInstanceOf(Promise)
      promise.catch(() => {})
    }
  })
}
