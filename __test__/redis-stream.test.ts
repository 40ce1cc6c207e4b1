import { RedisStreamAdapter } from 'nvent-native'
import { afterAll, beforeAll } from 'vitest'
import { streamConformance } from './conformance/stream'
import { RedisServer } from './support/redis'

let server: RedisServer
beforeAll(async () => {
  server = await RedisServer.start()
})
afterAll(() => server.stop())

streamConformance('redis', async () => {
  await server.flush(0)
  return {
    open: ({ retain } = {}) => new RedisStreamAdapter({
      connection: server.connection,
      ...retain === undefined ? {} : { retain: { topics: ['*'], maxLen: retain } },
    }),
    dispose: async () => {},
  }
}, { backend: 'redis', shared: true, groupNeedsRetain: true })
