import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { App, eventually, type Server } from './app.js'

const RELOADS = 50
let app: App, server: Server

beforeAll(async () => {
  app = await App.create('reload')
  server = await app.dev()
}, 240_000)
afterAll(async () => {
  await server?.stop('SIGKILL')
  await app?.remove()
})

test('fifty reloads of the dev server: every event delivered once, every job run once, nothing left behind', async () => {
  const source = join(app.dir, 'server/api/generation.get.ts')
  const original = await readFile(source, 'utf8')
  const used: { threads: number, files: number }[] = []

  for (let generation = 0; generation < RELOADS; generation++) {
    await writeFile(source, original.replace('generation = 0', `generation = ${generation}`))
    const answer = await eventually(async () => {
      const answer = await server.get('/api/generation', { withinMs: 3000 }).catch(() => undefined)
      return answer?.generation === generation && answer
    }, `generation ${generation}`)
    expect(answer.delivered).toBe(1)
    used.push(await resources(server.pid))
  }

  const { events, ran } = await eventually(async () => {
    const total = await server.get(`/api/total?generations=${RELOADS}`)
    return !total.ran.includes(null) && total
  }, 'the job of each generation')
  expect(ran).toEqual(Array.from({ length: RELOADS }, () => 1))
  expect([...new Set(events)]).toEqual(Array.from({ length: RELOADS }, (_, i) => i))
  expect(server.output).not.toContain('NVENT_')
  const ends = (log: string, name: string) => log.split('\n').filter(line => line === name).length
  await eventually(async () => {
    const log = await readFile(join(app.dir, 'closed.log'), 'utf8').catch(() => '')
    return ['FileStoreAdapter', 'MemoryStreamAdapter', 'FileQueueAdapter'].every(name => ends(log, name) >= RELOADS - 1)
  }, 'the end of the adapters of each generation')

  // The last reloads hold no more than the first did, but for the one thread that may still be on its way out.
  const most = (part: typeof used, of: 'threads' | 'files') => Math.max(...part.map(one => one[of]))
  const [early, late] = [used.slice(5, 15), used.slice(-10)]
  expect(most(late, 'threads')).toBeLessThanOrEqual(most(early, 'threads') + 8)
  expect(most(late, 'files')).toBeLessThanOrEqual(most(early, 'files') + 16)
}, 600_000)

/** Threads of the process, and files it has open in the data directory or as sockets. */
async function resources(pid: number) {
  const [threads, files] = await Promise.all([readdir(`/proc/${pid}/task`), readdir(`/proc/${pid}/fd`)])
  return { threads: threads.length, files: files.length }
}
