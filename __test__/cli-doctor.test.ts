/** What doctor finds in directories and servers that are not as they should be. */
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FileQueueAdapter, FileStoreAdapter } from 'nvent-native'
import { afterAll, expect, it } from 'vitest'
import { nvent, scratch } from './support/cli'
import { RedisServer } from './support/redis'
import { until } from './support/until'

const files = scratch()
afterAll(() => files.remove())

/** Runs doctor and returns how it ended, and what it found, by check. */
async function doctor(...where: string[]) {
  const { code, rows } = await nvent(['doctor', ...where])
  return { code, found: Object.fromEntries(rows.map(({ check, ...rest }: any) => [check, rest])) as Record<string, any> }
}

/** Makes the directories of an application, with a store and if wanted a queue, that nothing has open. */
async function directories(name: string, withQueue = true): Promise<string> {
  const dir = files.path(name)
  const store = new FileStoreAdapter({ dataDir: join(dir, 'store'), bus: null })
  await store.append('s', { type: 't' })
  await store.close()
  if (!withQueue) return dir
  const queue = new FileQueueAdapter({ dataDir: join(dir, 'queue') })
  await queue.enqueue('q', { name: 'n', data: 1 })
  await queue.close()
  return dir
}

it('a directory that others can read is a warning', async () => {
  const dir = await directories('open', false)
  chmodSync(join(dir, 'store'), 0o755)
  const { code, found } = await doctor('--dir', dir)
  expect(found).toMatchObject({ permissions: { level: 'warning', found: '755', todo: expect.stringContaining('chmod 700') }, store: { level: 'ok' } })
  expect([code, found['queue lock'], found['queue'], found['parked']]).toEqual([0, undefined, undefined, undefined])
})

it('a directory without a store is a problem', async () => {
  const dir = files.path('empty')
  mkdirSync(join(dir, 'store'), { recursive: true })
  expect(await doctor('--dir', dir)).toMatchObject({ code: 3, found: { store: { level: 'problem', found: 'there is no nvent.db' } } })
})

it.each(['store', 'queue'])('what is no database is a problem of the %s', async (damaged) => {
  const dir = await directories(`damaged-${damaged}`)
  expect(await doctor('--dir', dir)).toMatchObject({ code: 0, found: { 'store': { level: 'ok' }, 'queue': { level: 'ok' }, 'queue lock': { level: 'ok', found: 'no process has it open' } } })
  writeFileSync(join(dir, damaged, damaged === 'store' ? 'nvent.db' : 'queue.db'), 'x'.repeat(8_192))
  const { code, found } = await doctor('--dir', dir)
  expect([code, found['store'].level, found['queue'].level]).toEqual([3, ...damaged === 'store' ? ['problem', 'ok'] : ['ok', 'problem']])
})

it('a server that is not reachable, is a replica or a cluster, or could not save is a problem', async () => {
  const dir = files.path('redis')
  mkdirSync(dir)
  const redis = await RedisServer.start(undefined, '--dir', dir)
  const url = `redis://127.0.0.1:${redis.port}`
  try {
    await redis.cli('config', 'set', 'save', '3600 1')
    expect(await doctor('--redis', url)).toMatchObject({ code: 0, found: { role: { level: 'ok' }, cluster: { level: 'ok' }, persistence: { level: 'ok', found: 'snapshots' } } })
    rmSync(dir, { recursive: true })
    await redis.cli('bgsave').catch(() => {})
    await until('the snapshot has failed', async () => (await redis.cli('info', 'persistence')).includes('rdb_last_bgsave_status:err'))
    await redis.cli('replicaof', '127.0.0.1', '1')
    expect(await doctor('--redis', url)).toMatchObject({ code: 3, found: { role: { level: 'problem', found: 'slave' }, persistence: { level: 'problem' } } })
  }
  finally {
    await redis.stop()
  }
  expect(await doctor('--redis', url)).toMatchObject({ code: 3, found: { Redis: { level: 'problem', found: expect.stringContaining('is not reachable') } } })
  mkdirSync(dir)
  const cluster = await RedisServer.start(undefined, '--dir', dir, '--cluster-enabled', 'yes')
  try {
    expect(await doctor('--redis', `redis://127.0.0.1:${cluster.port}`)).toMatchObject({ code: 3, found: { cluster: { level: 'problem', found: 'is in cluster mode' } } })
  }
  finally {
    await cluster.stop()
  }
}, 60_000)
