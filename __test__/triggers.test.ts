import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { triggerSuite } from './conformance/triggers'
import { RedisServer } from './support/redis'

triggerSuite('triggers on memory', async bus => ({ store: new MemoryStoreAdapter({ bus }), queue: new MemoryQueueAdapter() }))

const folders: string[] = []
triggerSuite('triggers on file', async (bus) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-triggers-'))
  folders.push(dataDir)
  return { store: new FileStoreAdapter({ bus, dataDir: `${dataDir}/store` }), queue: new FileQueueAdapter({ dataDir: `${dataDir}/queue` }) }
})
afterAll(() => Promise.all(folders.map(folder => rm(folder, { recursive: true, force: true }))))

let server: RedisServer
let stores = 0
beforeAll(async () => {
  server = await RedisServer.start()
})
afterAll(() => server.stop())
triggerSuite('triggers on Redis, with a queue in memory', async bus => ({
  store: new RedisStoreAdapter({ bus, connection: { port: server.port, db: stores++ % 16 } }),
  queue: new MemoryQueueAdapter(),
}))
