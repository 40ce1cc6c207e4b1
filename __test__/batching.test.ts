import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FileStoreAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, test } from 'vitest'

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
