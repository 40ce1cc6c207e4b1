import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { JobState, QueueAdapter } from 'nvent-native'
import { gate, Inbox, nextWarning, rejects, until } from '../support/until'
import { noJson, noNames, noStrings, odd, throughJson } from '../support/values'

/** A place for queues, empty at first. */
export interface QueuePlace {
  open: (options?: { defaultJobOptions?: object }) => QueueAdapter
  /** Removes the place; its adapters are closed. */
  dispose: () => Promise<void>
}

/** What backends differ in. Each answer is tested, the noes too. */
export interface QueueCapabilities {
  /** A later adapter on the same place finds the jobs of an earlier one. */
  durable: boolean
}

/** The contract of a queue. Every backend's test calls it with a way to make places. */
export function queueConformance(name: string, factory: () => Promise<QueuePlace>, capabilities: QueueCapabilities): void {
  describe(`queue: ${name}`, () => {
    let place: QueuePlace
    let queue: QueueAdapter
    let adapters: QueueAdapter[]
    const another = (options?: { defaultJobOptions?: object }): QueueAdapter => {
      const adapter = place.open(options)
      adapters.push(adapter)
      return adapter
    }
    const add = (n: number, opts = {}, to = queue): Promise<string> => to.enqueue('q', { name: 'job', data: { n }, opts: { jobId: `job-${n}`, ...opts } })
    const state = async (id: string, of = queue): Promise<JobState | undefined> => (await of.getJob('q', id))?.state
    const reaches = (id: string, wanted: JobState): Promise<unknown> => until(`${id} is ${wanted}`, async () => await state(id) === wanted)
    const work = (handler: (job: any, ctx?: any) => any, opts = {}, on = queue): void => {
      on.registerWorker('q', 'job', async (job, ctx) => handler(job, ctx), opts)
      on.startProcessingQueue('q')
    }

    beforeEach(async () => {
      place = await factory()
      adapters = []
      queue = another()
      await queue.init()
    })
    afterEach(async () => {
      await Promise.all(adapters.map(adapter => adapter.close()))
      await place.dispose()
    })

    it('hands a worker the job as nvent needs it, and keeps what it returns', async () => {
      const jobs = new Inbox()
      const id = await queue.enqueue('q', { name: 'job', data: { flowId: 'r', input: { a: [null] } }, opts: { jobId: 'r__job', attempts: 3 } })
      expect(id).toBe('r__job')
      work((job) => {
        jobs.take(job)
        return { done: true }
      })
      expect((await jobs.atLeast(1))[0]).toMatchObject({ id: 'r__job', name: 'job', data: { flowId: 'r', input: { a: [null] } }, attemptsMade: 0, opts: { attempts: 3 } })
      await reaches('r__job', 'completed')
      expect(await queue.getJob('q', 'r__job')).toMatchObject({ id: 'r__job', name: 'job', state: 'completed', returnvalue: { done: true } })
      expect(await queue.getJob('q', 'missing')).toBeNull()
    })

    it('runs jobs that waited once processing starts, not before, in their order', async () => {
      const ran = new Inbox<number>()
      for (let n = 0; n < 20; n++) void add(n)
      queue.registerWorker('q', 'job', async job => ran.take(job.data.n))
      expect(await queue.getJobCounts('q')).toMatchObject({ waiting: 20, active: 0, completed: 0 })
      expect(ran.items).toEqual([])
      queue.startProcessingQueue('q')
      expect(await ran.atLeast(20)).toEqual(Array.from({ length: 20 }, (_, n) => n))
    })

    it('takes an id that is there already for the same job', async () => {
      const ran = new Inbox()
      expect(await Promise.all([add(1), add(1), add(1)])).toEqual(['job-1', 'job-1', 'job-1'])
      expect(await queue.getJobCounts('q')).toMatchObject({ waiting: 1 })
      work(job => ran.take(job))
      await reaches('job-1', 'completed')
      expect(await add(1)).toBe('job-1')
      await add(2)
      await reaches('job-2', 'completed')
      expect(ran.items.map(job => job.data.n)).toEqual([1, 2])
    })

    it('gives ids of its own where there are none', async () => {
      const ids = await Promise.all([1, 2].map(n => queue.enqueue('q', { name: 'job', data: n })))
      expect(new Set(ids).size).toBe(2)
    })

    it('forgets a job that awaits, so that its id can be used again', async () => {
      const ran = new Inbox()
      work((job) => {
        ran.take(job)
        return ran.items.length === 1 ? { awaiting: true } : 'resumed'
      })
      await add(1)
      await until('it is forgotten', async () => ran.items.length === 1 && await queue.getJob('q', 'job-1') === null)
      await add(1)
      await reaches('job-1', 'completed')
      expect(ran.items).toHaveLength(2)
    })

    it('tries a failing job again as often as it may, counting from 0', async () => {
      const attempts = new Inbox<number>()
      work((job) => {
        attempts.take(job.attemptsMade)
        if (job.attemptsMade < 2) throw new Error(`attempt ${job.attemptsMade}`)
        return 'at last'
      })
      await add(1, { attempts: 3, backoff: 5 })
      await reaches('job-1', 'completed')
      expect(attempts.items).toEqual([0, 1, 2])
      await add(2, { attempts: 2, backoff: { type: 'exponential', delay: 5 } })
      await reaches('job-2', 'failed')
      expect(await queue.getJob('q', 'job-2')).toMatchObject({ state: 'failed', failedReason: 'attempt 1', attemptsMade: 2 })
    })

    it('fails a job whose result has no JSON', async () => {
      work(() => ({ n: 1n }))
      await add(1)
      await reaches('job-1', 'failed')
      expect((await queue.getJob('q', 'job-1'))!.failedReason).toContain('n')
    })

    it('fails a job that takes longer than it may', async () => {
      const { opened, open } = gate()
      work(() => opened)
      await add(1, { timeout: 20 })
      await reaches('job-1', 'failed')
      expect((await queue.getJob('q', 'job-1'))!.failedReason).toMatch(/20 ?ms|timed? ?out|timeout/i)
      open()
    })

    it('runs as many at a time as the first worker says', async () => {
      const { opened, open } = gate()
      const running = new Inbox()
      work(async (job) => {
        running.take(job)
        await opened
      }, { concurrency: 3 })
      for (let n = 0; n < 5; n++) await add(n)
      await running.atLeast(3)
      await until('two wait', async () => (await queue.getJobCounts('q')).waiting === 2)
      expect(running.items).toHaveLength(3)
      open()
      await running.atLeast(5)
    })

    it('serves many names on one queue', async () => {
      const ran = new Inbox<string>()
      for (const name of ['a', 'b']) queue.registerWorker('q', name, async job => ran.take(`${name}:${job.data}`))
      queue.startProcessingQueue('q')
      await queue.enqueue('q', { name: 'b', data: 1 })
      await queue.enqueue('q', { name: 'a', data: 2 })
      expect((await ran.atLeast(2)).sort()).toEqual(['a:2', 'b:1'])
    })

    it('runs lower priorities first, and jobs without one before them', async () => {
      const ran = new Inbox<number>()
      await add(1, { priority: 10 })
      await add(2, { priority: 1 })
      await add(3)
      await add(4, { priority: 1 })
      work(job => ran.take(job.data.n))
      expect(await ran.atLeast(4)).toEqual([3, 2, 4, 1])
    })

    it('holds a delayed job back until its time', async () => {
      await add(1, { delay: 60_000 })
      await add(2, { delay: 20 })
      expect(await state('job-1')).toBe('delayed')
      work(() => 'ran')
      await reaches('job-2', 'completed')
      expect(await state('job-1')).toBe('delayed')
    })

    it('pauses and resumes', async () => {
      const ran = new Inbox()
      await queue.pause('q')
      expect(await queue.isPaused('q')).toBe(true)
      work(job => ran.take(job))
      await add(1)
      await queue.enqueue('other', { name: 'x', data: 1 })
      expect(await queue.isPaused('other')).toBe(false)
      expect(ran.items).toEqual([])
      await queue.resume('q')
      expect(await queue.isPaused('q')).toBe(false)
      await ran.atLeast(1)
    })

    it('lists jobs by state, in pages, and counts them', async () => {
      for (let n = 0; n < 5; n++) await add(n)
      await add(9, { delay: 60_000 })
      expect(await queue.getJobs('q', { state: ['waiting'] })).toHaveLength(5)
      expect(await queue.getJobs('q', { state: ['delayed'] })).toMatchObject([{ id: 'job-9', state: 'delayed' }])
      expect(await queue.getJobs('q')).toHaveLength(6)
      expect(await queue.getJobs('q', { state: ['waiting'], limit: 2, offset: 4 })).toHaveLength(1)
      expect(await queue.getJobCounts('q')).toEqual({ waiting: 5, active: 0, completed: 0, failed: 0, delayed: 1, paused: 0 })
      expect(await queue.removeJob('q', 'job-9')).toBe(true)
      expect(await queue.removeJob('q', 'job-9')).toBe(false)
      expect(await queue.getJob('q', 'job-9')).toBeNull()
    })

    it('removes what is done as it is told', async () => {
      work((job) => { if (job.data.n > 2) throw new Error('no') })
      await add(1, { removeOnComplete: true })
      await add(3, { removeOnFail: true })
      await add(2)
      await reaches('job-2', 'completed')
      await until('the others are gone', async () => (await queue.getJobs('q')).length === 1)
    })

    it('tells what happens to a job, until the listener is taken off', async () => {
      const told = new Inbox<string>()
      const offs = (['waiting', 'active', 'progress', 'completed', 'failed'] as const).map(event =>
        queue.on('q', event, payload => told.take(`${event} ${payload.jobId} ${payload.name} ${JSON.stringify(payload.returnvalue ?? payload.failedReason ?? payload.progress ?? null)}`)))
      await queue.getJobCounts('q')
      work(async (job, ctx) => {
        if (job.data.n === 2) throw new Error('broken')
        await ctx.progress(50)
        return 'fine'
      })
      await add(1)
      await reaches('job-1', 'completed')
      await add(2)
      expect((await told.atLeast(7)).slice(0, 7)).toEqual([
        'waiting job-1 job null', 'active job-1 job null', 'progress job-1 job 50', 'completed job-1 job "fine"',
        'waiting job-2 job null', 'active job-2 job null', 'failed job-2 job "broken"',
      ])
      offs.forEach(off => off())
      await add(1_000)
      await reaches('job-1000', 'failed').catch(() => {})
      expect(told.items).toHaveLength(7)
    }, 15_000)

    it('schedules for later, and again and again', async () => {
      const ran = new Inbox<string>()
      queue.registerWorker('q', 'job', async job => ran.take(job.data))
      queue.startProcessingQueue('q')
      await queue.schedule('q', { name: 'job', data: 'once' }, { delay: 10 })
      await queue.schedule('q', { name: 'job', data: 'twice' }, { repeat: { pattern: '* * * * * *', limit: 2 } })
      const yearly = await queue.schedule('q', { name: 'job', data: 'yearly' }, { cron: '0 0 1 1 *' })
      expect((await queue.getScheduledJobs('q')).map(job => job.id ?? job.scheduleId)).toContain(yearly)
      await until('all of it ran', () => ['once', 'twice', 'twice'].every((name, i, all) => ran.items.filter(other => other === name).length >= all.filter(other => other === name).length))
      expect(await queue.removeScheduledJob(yearly)).toBe(true)
      expect(await queue.removeScheduledJob(yearly)).toBe(false)
      expect(ran.items).not.toContain('yearly')
      await rejects(queue.schedule('q', { name: 'job', data: 1 }, { cron: 'every day' }), 'NVENT_INVALID', /every day/)
    }, 20_000)

    it('takes options for all jobs, and those of a job before them', async () => {
      const strict = place.open({ defaultJobOptions: { attempts: 2, backoff: 1 } })
      if (!capabilities.durable) adapters.push(strict)
      const attempts = new Inbox()
      await strict.enqueue('own', { name: 'job', data: 1, opts: { jobId: 'default' } })
      await strict.enqueue('own', { name: 'job', data: 2, opts: { jobId: 'own', attempts: 1 } })
      strict.registerWorker('own', 'job', async (job) => {
        attempts.take(job)
        throw new Error('no')
      })
      strict.startProcessingQueue('own')
      await until('both failed', async () => (await strict.getJobCounts('own')).failed === 2)
      expect(attempts.items.map(job => job.data).sort()).toEqual([1, 1, 2])
      await strict.close()
    })

    it('lets active jobs end on close, then takes no more', async () => {
      const { opened, open } = gate()
      const ended = new Inbox()
      const started = new Inbox()
      work(async (job) => {
        started.take(job)
        await opened
        ended.take(job)
      })
      await add(1)
      await started.atLeast(1)
      const closing = queue.close()
      open()
      await closing
      await queue.close()
      expect(ended.items).toHaveLength(1)
      await rejects(add(2), 'NVENT_CLOSED')
      await rejects(queue.getJobs('q'), 'NVENT_CLOSED')
    })

    it('keeps for a later adapter what it says it keeps', async () => {
      work(() => 'result')
      await add(1)
      await reaches('job-1', 'completed')
      await queue.pause('q')
      await add(2)
      await queue.close()
      const later = another()
      const found = [await later.getJob('q', 'job-1'), await later.getJob('q', 'job-2')]
      if (capabilities.durable) expect(found).toMatchObject([{ state: 'completed', returnvalue: 'result' }, { data: { n: 2 } }])
      else expect(found).toEqual([null, null])
    })

    it('counts no job lost or run twice among many', async () => {
      const ran = new Inbox<number>()
      work(async (job) => {
        await new Promise(resolve => setImmediate(resolve))
        ran.take(job.data.n)
      }, { concurrency: 10 })
      await Promise.all(Array.from({ length: 300 }, (_, n) => add(n)))
      await until('all completed', async () => (await queue.getJobCounts('q')).completed === 300, 30_000)
      expect(ran.items.sort((a, b) => a - b)).toEqual(Array.from({ length: 300 }, (_, n) => n))
    })

    it('tells of listeners that fail through a warning, and works on', async () => {
      const warning = nextWarning()
      queue.on('q', 'completed', () => { throw new Error('from a listener') })
      work(() => 1)
      await add(1)
      expect((await warning).message).toContain('queue')
      await add(2)
      await reaches('job-2', 'completed')
    })

    describe('bad input', () => {
      it('refuses names that are none', async () => {
        for (const bad of noNames as any[]) {
          await rejects(queue.enqueue(bad, { name: 'job', data: 1 }), 'NVENT_INVALID', /queue/)
          await rejects(queue.enqueue('q', { name: bad, data: 1 }), 'NVENT_INVALID', /job|name/)
        }
        for (const bad of noStrings as any[]) await rejects(queue.getJob('q', bad), 'NVENT_INVALID', /id/)
      })

      it.each(noJson)('refuses %s', async (_what, value) => {
        await rejects(queue.enqueue('q', { name: 'job', data: value }), 'NVENT_INVALID', /job/)
      })

      it.each(odd)('%s become what JSON makes of them', async (_what, value) => {
        await queue.enqueue('q', { name: 'job', data: value, opts: { jobId: 'odd' } })
        expect((await queue.getJob('q', 'odd'))!.data).toEqual(throughJson(value))
        expect(({} as any).polluted).toBeUndefined()
      })

      it.each<[any, RegExp]>([
        [{ attemps: 3 }, /attemps/], [{ attempts: 0 }, /attempts/], [{ attempts: '3' }, /attempts/], [{ delay: -1 }, /delay/], [{ backoff: 'x' }, /backoff/],
        [{ backoff: { type: 'linear', delay: 1 } }, /backoff|linear/], [{ jobId: 5 }, /jobId/],
      ])('refuses the options %j', async (opts, message) => {
        await rejects(queue.enqueue('q', { name: 'job', data: 1, opts }), 'NVENT_INVALID', message)
      })

      it('refuses handlers, events and queries that are none', async () => {
        for (const handler of [undefined, null, {}] as any[]) {
          await rejects(() => queue.registerWorker('q', 'job', handler), 'NVENT_INVALID', /handler/)
          await rejects(() => queue.on('q', 'completed', handler), 'NVENT_INVALID', /callback/)
        }
        await rejects(async () => queue.on('q', 'finished' as any, () => {}), 'NVENT_INVALID', /finished|event/)
        for (const query of [{ stat: [] }, { state: 'waiting' }, { state: ['done'] }, { limit: -1 }] as any[]) await rejects(queue.getJobs('q', query), 'NVENT_INVALID', /query|done/)
      })
    })
  })
}
