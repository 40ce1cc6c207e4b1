/** Export and import between directories and Redis, and the command on Redis, as processes. */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { nvent, scratch, serve, start } from './support/cli'
import { RedisServer } from './support/redis'
import { until } from './support/until'

const files = scratch()
let redis: RedisServer
let url: string
beforeAll(async () => {
  redis = await RedisServer.start()
  url = `redis://127.0.0.1:${redis.port}`
}, 30_000)
afterAll(async () => {
  await redis?.stop()
  files.remove()
})

/** Writes an export into a file and returns its rows, in an order that does not depend on the store, without their place in it. */
async function exported(name: string, ...where: string[]): Promise<any[]> {
  const { code, stdout, rows } = await nvent(['export', ...where])
  expect(code).toBe(0)
  writeFileSync(files.path(name), stdout)
  const [head, ...rest] = rows
  expect(head).toEqual({ format: 'nvent-native', version: 1 })
  const sorted = (value: any): any => typeof value !== 'object' || value === null || Array.isArray(value) ? value : Object.fromEntries(Object.keys(value).sort().map(key => [key, sorted(value[key])]))
  // The time to live of a key on Redis is counted in ms from the moment it is set.
  const same = ({ at: _, expiresAt, ...row }: any): any => sorted({ ...row, ...expiresAt === undefined ? {} : { expiresAt: Math.round(expiresAt / 60_000) } })
  const kind = (row: any): string => JSON.stringify([row.subject, row.key, row.index, row.collection, row.id])
  return rest.map(same).sort((a, b) => kind(a).localeCompare(kind(b)))
}

it('an export is the same after import into a directory, into Redis and back', async () => {
  const served = await serve('file', files.path('first'))
  const first = await exported('first.ndjson', '--dir', files.path('first'))
  await served.stop()
  expect(first.length).toBeGreaterThan(30)
  expect(first.map(row => row.key)).not.toContain('gone')
  expect(first).toContainEqual({ index: 'people', id: 'ann', score: 2.5, metadata: { age: 7, name: 'Ann', version: 1 } })

  const imported = await nvent(['import', '--dir', files.path('second')], { input: files.path('first.ndjson') })
  expect(imported).toMatchObject({ code: 0, rows: [{ added: first.length, skipped: 0 }] })
  expect(await exported('second.ndjson', '--dir', files.path('second'))).toEqual(first)
  expect(readFileSync(files.path('second.ndjson'), 'utf8')).toBe(readFileSync(files.path('first.ndjson'), 'utf8'))
  const events = first.filter(row => row.event).length
  expect((await nvent(['import', files.path('first.ndjson'), '--dir', files.path('second')])).rows).toEqual([{ added: first.length - events, skipped: events }])
  expect(await exported('again.ndjson', '--dir', files.path('second'))).toEqual(first)

  const documents = first.filter(row => row.collection).length
  expect((await nvent(['import', '--redis', url, '--prefix', 'nq'], { input: files.path('first.ndjson') })).rows).toEqual([{ added: first.length, skipped: 0 }])
  expect((await nvent(['import', '--redis', url, '--prefix', 'nq'], { input: files.path('first.ndjson') })).rows).toEqual([{ added: first.length - events, skipped: events }])
  const onRedis = await exported('redis.ndjson', '--redis', url, '--prefix', 'nq')
  expect(documents).toBe(1)
  expect(onRedis).toEqual(first.filter(row => !row.collection))
  expect((await nvent(['import', '--dir', files.path('third')], { input: files.path('redis.ndjson') })).code).toBe(0)
  expect(await exported('third.ndjson', '--dir', files.path('third'))).toEqual(onRedis)
  expect((await nvent(['run', 'run-broken', '--redis', url, '--prefix', 'nq'])).rows).toMatchObject([{ status: 'failed', error: 'the card was declined' }])
}, 120_000)

it('an export is resumed after a position, and an import says which line is wrong', async () => {
  const lines = readFileSync(files.path('first.ndjson'), 'utf8').trim().split('\n')
  const at = JSON.parse(lines[10]!).at
  const { stdout } = await nvent(['export', '--after', at, '--dir', files.path('second')])
  expect(stdout.trim().split('\n').slice(1)).toEqual(lines.slice(11))
  expect(await nvent(['export', '--after', 'here', '--dir', files.path('second')])).toMatchObject({ code: 2 })

  writeFileSync(files.path('half.ndjson'), `${lines.slice(0, 12).join('\n')}\n{"half":`)
  expect(await nvent(['import', '--dir', files.path('fourth')], { input: files.path('half.ndjson') })).toMatchObject({ code: 1, stderr: expect.stringMatching(/line 1[23]/) })
  expect((await nvent(['import', '--dir', files.path('fourth')], { input: files.path('first.ndjson') })).rows).toMatchObject([{ added: expect.any(Number) }])
  expect(await exported('fourth.ndjson', '--dir', files.path('fourth'))).toEqual(await exported('second.ndjson', '--dir', files.path('second')))

  // An older event that the subject does not have.
  const [head, event] = lines as [string, string]
  writeFileSync(files.path('older.ndjson'), `${head}\n${event.replace(/"id":"\d+-\d+"/, '"id":"1-1"')}\n`)
  for (const where of [['--dir', files.path('second')], ['--redis', url, '--prefix', 'nq']]) {
    expect(await nvent(['import', ...where], { input: files.path('older.ndjson') })).toMatchObject({ code: 1, stderr: expect.stringContaining('NVENT_CONFLICT') })
  }
  for (const text of ['', '{"format":"other"}\n', '{"format":"nvent-native","version":9}\n']) {
    writeFileSync(files.path('wrong.ndjson'), text)
    expect(await nvent(['import', '--dir', files.path('second')], { input: files.path('wrong.ndjson') })).toMatchObject({ code: 1, stderr: expect.stringContaining('NVENT_INVALID') })
  }
}, 120_000)

const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)

it('what is nested as deeply as may be is the same after an import', async () => {
  const head = '{"format":"nvent-native","version":1}'
  writeFileSync(files.path('deep.ndjson'), [head, `{"subject":"s","event":{"id":"1-0","ts":1,"type":"a","data":${nested(511)}}}`, `{"key":"k","value":${nested(512)}}`, ''].join('\n'))
  for (const where of [['--dir', files.path('deep')], ['--redis', `${url.replace(/\/\d*$/, '')}/5`]]) {
    expect(await nvent(['import', ...where], { input: files.path('deep.ndjson') })).toMatchObject({ code: 0, rows: [{ added: 2, skipped: 0 }] })
    const { stdout } = await nvent(['export', ...where])
    const rows = (text: string): object[] => text.trim().split('\n').slice(1).map(line => ({ ...JSON.parse(line), at: '' }))
    expect(rows(stdout)).toEqual(rows(readFileSync(files.path('deep.ndjson'), 'utf8')))
  }
}, 60_000)

it.each([
  '{"index":"k","id":"i","score":1,"metadata":[]}', '{"collection":"c","id":"d","doc":5}', '{"key":"k"}', '{"subject":"s","event":{"data":1}}', 'null', '[]',
  `{"key":"k","value":${nested(513)}}`, '{"key":"","value":1}', '{"subject":7,"event":{"type":"a"}}', '{"index":"k","id":"i","score":"1","metadata":{}}', '{',
])('an import refuses the line %s', async (line) => {
  const [head] = readFileSync(files.path('first.ndjson'), 'utf8').split('\n') as [string]
  writeFileSync(files.path('line.ndjson'), `${head}\n\n{"key":"before","value":1}\n\n${line}\n`)
  for (const where of [['--dir', files.path('lines')], ['--redis', url, '--prefix', 'lines']]) {
    expect(await nvent(['import', ...where], { input: files.path('line.ndjson') }), where[0]).toMatchObject({ code: 1, stderr: expect.stringMatching(/^nvent-native: NVENT_INVALID: line 5: /) })
  }
}, 60_000)

it('on Redis a replay reaches the process that has the consumer', async () => {
  await redis.cli('flushall')
  const served = await serve('redis', url)
  try {
    expect((await nvent(['runs', '--redis', url])).rows).toHaveLength(4)
    const { rows } = await nvent(['parked', 'mailer', '--redis', url])
    expect(rows).toHaveLength(3)
    served.server.child.stdin.write('mend\n')
    expect(await nvent(['replay', 'mailer', rows[1].position, '--redis', url])).toMatchObject({ code: 0, rows: [{ consumer: 'mailer', replayed: 1 }] })
    await served.server.prints('mailed user-2')
    await until('that is stored', async () => (await nvent(['parked', '--redis', url])).rows.length === 2, 30_000)
    expect((await nvent(['replay', 'mailer', '--all', '--redis', url])).rows).toEqual([{ consumer: 'mailer', replayed: 2 }])
    await served.server.prints('mailed user-3')
    await until('nothing is parked', async () => (await nvent(['parked', '--redis', url])).stdout === '', 30_000)
    expect(await redis.cli('exists', 'nvent:~consumer:replay:mailer')).toBe('0')
    const following = start(['run', 'run-stuck', '--follow', '--redis', url])
    await following.prints('step.started')
    served.server.child.stdin.write('finish\n')
    expect((await following.exit()).rows.at(-1)).toMatchObject({ type: 'flow.completed' })
  }
  finally {
    await served.stop()
  }
}, 120_000)

it('doctor says what is wrong with a Redis server', async () => {
  const found = async (): Promise<Record<string, any>> => Object.fromEntries((await nvent(['doctor', '--redis', url])).rows.map(row => [row.check, row]))
  expect(await found()).toMatchObject({ Redis: { level: 'ok' }, role: { level: 'ok' }, eviction: { level: 'ok' }, persistence: { level: 'warning' }, ACL: { level: 'ok' } })
  await redis.cli('config', 'set', 'maxmemory-policy', 'allkeys-lru')
  await redis.cli('acl', 'setuser', 'default', '-xadd')
  try {
    expect(await nvent(['doctor', '--redis', url])).toMatchObject({ code: 3 })
    expect(await found()).toMatchObject({ eviction: { level: 'problem', todo: expect.stringContaining('noeviction') }, ACL: { level: 'problem', found: expect.stringContaining('xadd') } })
  }
  finally {
    await redis.cli('acl', 'setuser', 'default', '+@all')
  }
}, 60_000)
