import { RedisStreamAdapter } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { streamConformance } from './conformance/stream'
import { RedisServer } from './support/redis'
import { Inbox, rejects, until } from './support/until'

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

it('parks what a group failed at five times, shows it, and publishes it again', async () => {
  await server.flush(0)
  const stream = new RedisStreamAdapter({ connection: server.connection, retain: { topics: ['jobs'] } })
  const event = { type: 'job', data: { n: [null, '00123'] }, metadata: { by: 'test' } }
  const inbox = new Inbox()
  let broken = true
  await stream.subscribe('jobs', (received) => {
    inbox.take(received)
    if (broken) throw new Error('not yet')
  }, { group: 'workers' })
  await stream.publish('jobs', event)
  const parked = await until('it is parked', async () => (await stream.parked('jobs', 'workers'))[0], 30_000)
  expect(parked).toEqual({ id: expect.stringMatching(/^\d+-\d+$/), deliveries: 5, event })
  expect(inbox.items).toHaveLength(5)
  broken = false
  expect(await stream.replayParked('jobs', 'workers')).toBe(1)
  expect((await inbox.atLeast(6))[5]).toEqual(event)
  expect(await stream.parked('jobs', 'workers')).toEqual([])

  await rejects(stream.parked('jobs:*', 'workers'), 'NVENT_INVALID', /topic/)
  await rejects(stream.replayParked('fleeting', 'workers'), 'NVENT_INVALID', /retain/)
  await rejects(stream.parked('jobs', ''), 'NVENT_INVALID', /group/)
  await stream.shutdown()
  await rejects(stream.parked('jobs', 'workers'), 'NVENT_CLOSED')
}, 60_000)
