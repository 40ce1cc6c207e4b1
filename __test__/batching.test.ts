import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FileStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { run } from './support/process'
import { until } from './support/until'

let dataDir: string
let store: FileStoreAdapter

beforeEach(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-batching-'))
  store = new FileStoreAdapter({ dataDir, bus: null })
})

afterEach(async () => {
  await store.close()
  await rm(dataDir, { recursive: true })
})

const appends = (count: number) => Array.from({ length: count }, (_, n) => store.append('s', { type: 'a', n }))

test('writes of one turn are one transaction', async () => {
  // So many that they are no longer taken for writes that come one by one.
  await Promise.all(appends(500))
  const before = store.stats()
  await Promise.all(appends(50))
  const after = store.stats()
  expect(after.groups! - before.groups!).toBe(1)
  expect(after.groupSizeMax).toBeGreaterThanOrEqual(50)
})

test('a write is under way when its turn ends, awaited or not', async () => {
  await Promise.all(appends(500))
  const [last] = appends(1)
  const closed = store.close()
  await expect(last).resolves.toMatchObject({ n: 0 })
  await closed
})

test('results that no string can hold together are answered one after the other, one that none can hold fails, and neither holds up a small one', async () => {
  const doc = { text: 'x'.repeat(48_000_000) }
  for (let n = 0; n < 12; n++) await store.save('c', `d${n}`, doc)
  await store.kv.set('small', 1)
  const read = Array.from({ length: 12 }, async (_, n) => (await store.get('c', `d${n}`))!['text'].length)
  expect(await Promise.all([...read, store.kv.get('small')])).toEqual([...Array.from({ length: 12 }, () => 48_000_000), 1])
  const [all, first, small] = await Promise.allSettled([store.list('c'), store.list('c', { limit: 1 }), store.kv.get('small')])
  expect(all).toMatchObject({ reason: { code: 'NVENT_INVALID', retryable: false, message: expect.stringMatching(/^the result has 576\d{6} bytes, .* read less at a time$/) } })
  expect(first).toMatchObject({ value: [{ id: 'd0' }] })
  expect(small).toEqual({ status: 'fulfilled', value: 1 })
}, 120_000)

test('messages that no string can hold together are all delivered', async () => {
  const stream = new MemoryStreamAdapter()
  let count = 0
  await stream.subscribe('t', event => void (count += Number(event.data.length === 9_000_000)))
  const data = 'y'.repeat(9_000_000)
  await Promise.all(Array.from({ length: 64 }, () => stream.publish('t', { type: 'a', data })))
  await until('64 messages', () => count === 64, 60_000)
  await stream.shutdown()
}, 120_000)

test('a write of another thread does not wait for the turn of one that writes and then computes', async () => {
  expect(await run('writes-then-computes.mjs')).toMatchObject({ code: 0, stdout: 'it was answered meanwhile\n', stderr: '' })
})
