import { RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { storeConformance } from './conformance/store'
import { RedisServer } from './support/redis'

let server: RedisServer
let db = 0
beforeAll(async () => {
  server = await RedisServer.start()
})
afterAll(() => server.stop())

storeConformance('redis', async () => {
  const place = db++ % 16
  await server.flush(place)
  return {
    open: options => new RedisStoreAdapter({ ...options, connection: { ...server.connection, db: place } }),
    dispose: async () => {},
  }
}, { backend: 'redis', durable: true })
