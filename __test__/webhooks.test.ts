import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { webhookSuite } from './conformance/webhooks'
import { RedisServer } from './support/redis'

webhookSuite('webhooks on memory', async bus => ({ store: new MemoryStoreAdapter({ bus }), queue: new MemoryQueueAdapter() }))

const folders: string[] = []
webhookSuite('webhooks on file', async (bus) => {
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-webhooks-'))
  folders.push(dataDir)
  return { store: new FileStoreAdapter({ bus, dataDir: `${dataDir}/store` }), queue: new FileQueueAdapter({ dataDir: `${dataDir}/queue` }) }
})
afterAll(() => Promise.all(folders.map(folder => rm(folder, { recursive: true, force: true }))))

let server: RedisServer
beforeAll(async () => {
  server = await RedisServer.start()
})
afterAll(() => server.stop())
webhookSuite('webhooks on Redis, with a queue in memory', async (bus) => {
  await server.flush(0)
  return { store: new RedisStoreAdapter({ bus, connection: server.connection }), queue: new MemoryQueueAdapter() }
})
