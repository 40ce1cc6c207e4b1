import { expect, it } from 'vitest'
import { rejects } from '../support/until'
import type { QueueContext } from './queue'

const hourly = '0 * * * *'

export function schedules(context: QueueContext): void {
  it('fires as often as its limit, then is removed', async () => {
    const { queue, work, collect } = context
    const completed = collect('completed')
    work(job => job.data)
    const id = await queue.schedule('q', { name: 'a', data: { n: 1 } }, { cron: '* * * * * *', repeat: { limit: 2 } })
    expect(await queue.getScheduledJobs('q')).toMatchObject([{ id, jobName: 'a', queueName: 'q', cron: '* * * * * *', limit: 2, repeatCount: 0 }])
    await completed.atLeast(2)
    expect(completed.items.map(event => event.returnvalue)).toEqual([{ n: 1 }, { n: 1 }])
    expect(new Set(completed.items.map(event => event.jobId)).size).toBe(2)
    expect(await queue.getScheduledJobs('q')).toEqual([])
  })

  it('is one schedule for each id, or for each queue, name and pattern', async () => {
    const { queue } = context
    const job = { name: 'a', data: 1 }
    const derived = await queue.schedule('q', job, { cron: hourly })
    expect(await queue.schedule('q', job, { repeat: { pattern: hourly } })).toBe(derived)
    const named = { ...job, opts: { jobId: 'nightly' } }
    expect(await queue.schedule('q', named, { cron: hourly })).toBe('nightly')
    expect(await queue.schedule('q', named, { cron: '0 0 * * *' })).toBe('nightly')
    const found = await queue.getScheduledJobs('q')
    expect(Object.fromEntries(found.map(schedule => [schedule.id, schedule.cron]))).toEqual({ [derived]: hourly, nightly: '0 0 * * *' })
    expect(await queue.getScheduledJobs('other')).toEqual([])
  })

  it('is removed by its id, once', async () => {
    const { queue } = context
    const id = await queue.schedule('q', { name: 'a', data: 1 }, { cron: hourly })
    expect([await queue.removeScheduledJob(id), await queue.removeScheduledJob(id), await queue.removeScheduledJob('never')]).toEqual([true, false, false])
    expect(await queue.getScheduledJobs('q')).toEqual([])
  })

  it('has the time of its next run', async () => {
    const { queue } = context
    const before = Date.now()
    await queue.schedule('q', { name: 'a', data: 1 }, { cron: hourly })
    const [{ nextRun }] = await queue.getScheduledJobs('q') as [any]
    expect(nextRun).toBeInstanceOf(Date)
    expect(nextRun.getUTCSeconds()).toBe(0)
    expect(nextRun.getTime()).toBeGreaterThan(before)
    expect(nextRun.getTime()).toBeLessThanOrEqual(Date.now() + 3_600_000)
  })

  it('fires by the clock of its time zone', async () => {
    const { queue } = context
    await queue.schedule('q', { name: 'a', data: 1 }, { repeat: { pattern: '0 0 * * *', tz: 'Asia/Kolkata' } })
    const [{ nextRun, tz }] = await queue.getScheduledJobs('q') as [any]
    expect([new Date(nextRun).toISOString().slice(11), tz]).toEqual(['18:30:00.000Z', 'Asia/Kolkata'])
  })

  it('never takes the place of a schedule of another queue', async () => {
    const { queue } = context
    const ids = [
      await queue.schedule('a:b', { name: 'c', data: 1 }, { cron: hourly }),
      await queue.schedule('a', { name: 'b:c', data: 1 }, { cron: hourly }),
      await queue.schedule('one', { name: 'a', data: 1, opts: { jobId: 'nightly' } }, { cron: hourly }),
      await queue.schedule('two', { name: 'a', data: 1, opts: { jobId: 'nightly' } }, { cron: hourly }),
    ]
    expect(new Set(ids).size).toBe(4)
    const found = await Promise.all(['a:b', 'a', 'one', 'two'].map(async name => (await queue.getScheduledJobs(name)).map(schedule => schedule.id)))
    expect(found).toEqual(ids.map(id => [id]))
    expect(await queue.removeScheduledJob(ids[3]!)).toBe(true)
    expect(await queue.getScheduledJobs('one')).toHaveLength(1)
  })

  it('with a delay is removed by the id that it returned', async () => {
    const { queue } = context
    const id = await queue.schedule('q', { name: 'a', data: 1 }, { delay: 86_400_000 })
    expect([await queue.removeScheduledJob(id), await queue.removeScheduledJob(id), await queue.getJobs('q')]).toEqual([true, false, []])
  })

  it('with a delay, or with neither, is one job', async () => {
    const { queue, state } = context
    expect(await queue.schedule('q', { name: 'a', data: 1, opts: { jobId: 'later' } }, { delay: 86_400_000 })).toBe('later')
    expect(await queue.schedule('q', { name: 'a', data: 1, opts: { jobId: 'now' } })).toBe('now')
    expect([await state('later'), await state('now'), await queue.getScheduledJobs('q')]).toEqual(['delayed', 'waiting', []])
  })

  it.each<[string, any, RegExp]>([
    ['a pattern of too few fields', { cron: '* * *' }, /options\.cron: "\* \* \*" has 3 fields.*five.*six/],
    ['a pattern out of range', { cron: '61 * * * *' }, /options\.cron.*61 \* \* \* \*/],
    ['a pattern that never comes', { cron: '0 0 30 2 *' }, /options\.cron: "0 0 30 2 \*/],
    ['words', { cron: 'every now and then ok' }, /options\.cron.*no cron pattern/],
    ['a pattern of repeat that is none', { repeat: { pattern: '* * *' } }, /options\.repeat\.pattern: "\* \* \*" has 3/],
    ['two patterns', { cron: hourly, repeat: { pattern: '* * * * *' } }, /cron and repeat\.pattern differ/],
    ['a delay and a pattern', { cron: hourly, delay: 5 }, /not both/],
    ['a repeat without a pattern', { repeat: { limit: 2 } }, /repeat\.pattern.*required/],
    ['a limit of none', { cron: hourly, repeat: { limit: 0 } }, /repeat\.limit/],
    ['a time zone that is none', { repeat: { pattern: hourly, tz: 'Mars/Olympus' } }, /options\.repeat\.tz.*Mars\/Olympus.*Europe\/Berlin/],
    ['a misspelt option', { crn: hourly }, /crn.*did you mean "cron"/],
    ['a misspelt option of repeat', { repeat: { patern: hourly } }, /repeat\.patern.*did you mean "pattern"/],
    ['a delay before now', { delay: -1 }, /options\.delay/],
    ['a delay of NaN', { delay: NaN }, /options\.delay.*NaN/],
    ['a limit of NaN', { cron: hourly, repeat: { limit: NaN } }, /options\.repeat\.limit.*NaN/],
  ])('refuses %s', async (_what, options, message) => {
    const { queue } = context
    await rejects(queue.schedule('q', { name: 'a', data: 1 }, options), 'NVENT_INVALID', message)
    expect(await queue.getScheduledJobs('q')).toEqual([])
    expect(await queue.getJobs('q')).toEqual([])
  })
}
