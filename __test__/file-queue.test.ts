import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { FileQueueAdapter } from 'nvent-native'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { queueConformance } from './conformance/queue'
import { run } from './support/process'
import { Inbox, rejects, until } from './support/until'

const makeDir = (): Promise<string> => mkdtemp(path.join(tmpdir(), 'nvent-queue-'))

queueConformance('file', async () => {
  const dataDir = await makeDir()
  return {
    open: options => new FileQueueAdapter({ ...options, dataDir }),
    dispose: () => rm(dataDir, { recursive: true }),
  }
}, { durable: true })

describe('file queue', () => {
  let dataDir: string
  beforeEach(async () => { dataDir = await makeDir() })
  afterEach(() => rm(dataDir, { recursive: true }))

  it('runs every job to its end after kill -9 with jobs in flight, and is locked meanwhile', async () => {
    const [jobs, concurrency] = [60, 50]
    const script = fileURLToPath(new URL('fixtures/works-until-killed.mjs', import.meta.url))
    const child = spawn(process.execPath, [script, dataDir, String(jobs), String(concurrency)], { stdio: ['ignore', 'pipe', 'inherit'] })
    const begun = new Inbox<string>()
    createInterface(child.stdout).on('line', begun.take)
    try {
      await begun.atLeast(concurrency)
      await rejects(new FileQueueAdapter({ dataDir }).init(), 'NVENT_LOCKED', new RegExp(path.basename(dataDir)))
    }
    finally {
      child.kill('SIGKILL')
      await once(child, 'close')
    }
    expect(begun.items).toHaveLength(concurrency)

    const queue = new FileQueueAdapter({ dataDir })
    const [ran, completed, stalled] = [new Inbox(), new Inbox(), new Inbox()]
    queue.on('q', 'completed', completed.take)
    queue.on('q', 'stalled', stalled.take)
    queue.registerWorker('q', 'a', async job => ran.take(job), { concurrency })
    queue.startProcessingQueue('q')
    await completed.atLeast(jobs)
    expect(await queue.getJobCounts('q')).toEqual({ waiting: 0, active: 0, completed: jobs, failed: 0, delayed: 0, paused: 0 })
    expect(new Set(ran.items.map(job => job.id)).size).toBe(jobs)
    expect(ran.items).toHaveLength(jobs)
    // An attempt counts where its handler had begun.
    for (const { id, attemptsMade } of ran.items) expect([id, attemptsMade]).toEqual([id, begun.items.includes(id) ? 1 : 0])
    expect(stalled.items.map(event => event.jobId).sort()).toEqual(begun.items.sort())
    await queue.close()
  })

  it('keeps nothing in JavaScript of the jobs that wait in the folder', async () => {
    const { stdout, stderr } = await run('enqueues-much.mjs', dataDir)
    expect(stderr).toBe('')
    // A hundred bytes a job would be two million.
    expect(Number(stdout)).toBeLessThan(1_000_000)
  })

  it('runs a delayed job whose time came while nothing ran', async () => {
    const first = new FileQueueAdapter({ dataDir })
    await first.enqueue('q', { name: 'a', data: 1, opts: { jobId: 'x', delay: 100 } })
    const due = Date.now() + 100
    await first.close()
    await until('its time', () => Date.now() > due)
    const queue = new FileQueueAdapter({ dataDir })
    const completed = new Inbox()
    queue.on('q', 'completed', completed.take)
    queue.registerWorker('q', 'a', async () => {})
    queue.startProcessingQueue('q')
    expect(await completed.atLeast(1)).toMatchObject([{ jobId: 'x' }])
    await queue.close()
  })

  it('fires once for all times that were missed while nothing ran, and goes on', async () => {
    const first = new FileQueueAdapter({ dataDir })
    await first.init()
    await until('the first half of a second, so that it does not fire yet', () => Date.now() % 1_000 < 500)
    const id = await first.schedule('q', { name: 'a', data: 1 }, { cron: '* * * * * *' })
    const nextRun = (await first.getScheduledJobs('q'))[0].nextRun.getTime()
    await first.close()
    await until('three missed times', () => Date.now() > nextRun + 2_000)
    const reopened = Date.now()
    const queue = new FileQueueAdapter({ dataDir })
    const times = await until('the next time', async () => {
      const fired = (await queue.getJobs('q')).map(job => Number(job.id.slice(id.length + 1)))
      return fired.some(time => time > reopened) ? fired : undefined
    })
    expect(times.filter(time => time <= reopened)).toEqual([nextRun])
    await queue.close()
  })

  it('is copied by backup, and verified', async () => {
    const queue = new FileQueueAdapter({ dataDir })
    await queue.enqueue('q', { name: 'a', data: [1], opts: { jobId: 'x' } })
    const copy = path.join(dataDir, 'copy')
    await mkdir(copy)
    await queue.backup(path.join(copy, 'queue.db'))
    await rejects(queue.backup(path.join(copy, 'queue.db')), 'NVENT_INVALID', /queue\.db/)
    expect(await queue.verify()).toEqual({ ok: true, problems: [] })
    await queue.close()
    const restored = new FileQueueAdapter({ dataDir: copy })
    expect(await restored.getJob('q', 'x')).toMatchObject({ data: [1], state: 'waiting' })
    await restored.close()
  })

  it('says why it is not well', async () => {
    await writeFile(path.join(dataDir, 'queue.db'), 'this is no database, and long enough to be one'.repeat(50))
    const queue = new FileQueueAdapter({ dataDir })
    expect(await queue.health()).toMatchObject({ ok: false, backend: 'file', detail: expect.stringMatching(/queue\.db/) })
    await queue.close()
  })

  it.each([[true, 'worked'], [false, '']])('keeps a process alive where a worker has keepAlive: %s', async (keepAlive, output) => {
    const { stdout, stderr } = await run('works-on-a-delayed-job.mjs', dataDir, String(keepAlive))
    expect([stdout.trim(), stderr]).toEqual([output, ''])
  })

  it('is shared by the adapters of one process', async () => {
    const [one, other] = [new FileQueueAdapter({ dataDir }), new FileQueueAdapter({ dataDir })]
    const completed = new Inbox()
    one.on('q', 'completed', completed.take)
    other.registerWorker('q', 'a', async job => job.data)
    other.startProcessingQueue('q')
    await one.enqueue('q', { name: 'a', data: 7 })
    expect(await completed.atLeast(1)).toMatchObject([{ returnvalue: 7 }])
    await Promise.all([one.close(), other.close()])
  })

  it.each<[string, any, RegExp]>([
    ['no folder', {}, /dataDir/],
    ['an empty folder', { dataDir: '' }, /dataDir/],
    ['no options', undefined, /dataDir/],
    ['an unknown durability', { dataDir: 'x', durability: 'ram' }, /ram.*os.*disk/],
    ['a misspelt option', { datadir: 'x' }, /datadir.*did you mean "dataDir"/],
  ])('refuses %s', async (_what, options, message) => {
    await rejects(() => new FileQueueAdapter(options), 'NVENT_INVALID', message)
  })
})
