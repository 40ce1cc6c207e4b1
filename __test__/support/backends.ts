import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventBus, QueueAdapter, StoreAdapter } from 'nvent-native'
import { FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { RedisServer } from './redis'

/** Returns a new, empty store that announces on the bus, and a queue. */
type Open = (bus: EventBus) => Promise<{ store: StoreAdapter, queue: QueueAdapter }>

/** Runs a suite on memory, on file, and on a store on Redis with a queue in memory. */
export function onEveryBackend(what: string, suite: (name: string, open: Open) => void): void {
  suite(`${what} on memory`, async bus => ({ store: new MemoryStoreAdapter({ bus }), queue: new MemoryQueueAdapter() }))

  const folders: string[] = []
  suite(`${what} on file`, async (bus) => {
    const dataDir = await mkdtemp(join(tmpdir(), `nvent-${what}-`))
    folders.push(dataDir)
    return { store: new FileStoreAdapter({ bus, dataDir: `${dataDir}/store` }), queue: new FileQueueAdapter({ dataDir: `${dataDir}/queue` }) }
  })
  afterAll(() => Promise.all(folders.map(folder => rm(folder, { recursive: true, force: true }))))

  let server: RedisServer
  let stores = 0
  beforeAll(async () => { server = await RedisServer.start() })
  afterAll(() => server.stop())
  suite(`${what} on Redis, with a queue in memory`, async (bus) => {
    const db = stores++ % 16
    await server.flush(db)
    return { store: new RedisStoreAdapter({ bus, connection: { ...server.connection, db } }), queue: new MemoryQueueAdapter() }
  })
}
