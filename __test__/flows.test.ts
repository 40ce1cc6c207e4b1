import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { flowSuite } from './conformance/flows'
import { RedisServer } from './support/redis'

flowSuite('flows on memory', async bus => ({ store: new MemoryStoreAdapter({ bus }), queue: new MemoryQueueAdapter() }))

const folders: string[] = []
flowSuite('flows on file', async (bus) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-flows-'))
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
flowSuite('flows on Redis, with a queue in memory', async bus => ({
  store: new RedisStoreAdapter({ bus, connection: { port: server.port, db: stores++ % 16 } }),
  queue: new MemoryQueueAdapter(),
}))
