import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { createEventBus, createStreamCoordinator, RedisStoreAdapter, RedisStreamAdapter } from 'nvent-native'
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
}, { backend: 'redis', shared: true, retainsExactly: false, groupAcknowledges: true })

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

it('keeps a cache fresh through lost connections where store-sync is retained', async () => {
  await server.flush(0)
  const { connection } = server
  const retain = { topics: ['store-sync:*'] }
  const bus = createEventBus()
  const store = new RedisStoreAdapter({ connection, bus })
  const [writer, reader] = [new RedisStreamAdapter({ connection, retain }), new RedisStreamAdapter({ connection, retain })]
  const coordinator = createStreamCoordinator({ bus, stream: writer })
  await coordinator.start()
  const cached = new Map(['run:0', 'run:1', 'run:2'].map(subject => [subject, [] as any[]]))
  await reader.subscribe('store-sync:append:*', ({ data }) => void cached.get(data.subject)!.push(data.event))
  for (let n = 0; n < 200; n++) {
    if (n % 40 === 20) await server.cli('client', 'kill', 'type', 'pubsub')
    await store.append(`run:${n % 3}`, { type: 'x', data: n })
  }
  await until('the cache has as many', () => [...cached.values()].flat().length >= 200)
  for (const [subject, events] of cached) expect(events).toEqual(await store.read(subject))
  expect(reader.stats()).toMatchObject({ gaps: 0 })
  expect(reader.stats().reconnects).toBeGreaterThan(0)
  await coordinator.stop()
  await Promise.all([store.close(), writer.shutdown(), reader.shutdown()])
})

it('costs no connection when the event loop is blocked, and events only as the policy says', async () => {
  const [COUNT, SMALL] = [3_000, 500]
  // A subscriber that does not read is dropped at a megabyte; this is six.
  await server.cli('config', 'set', 'client-output-buffer-limit', 'pubsub 1mb 1mb 10')
  const fixture = fileURLToPath(new URL('fixtures/blocked-loop.mjs', import.meta.url))
  const child = spawn(process.execPath, [fixture, String(server.port), String(COUNT), String(SMALL)], { stdio: ['pipe', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', text => out += text)
  await until('its event loop is blocked', () => out.includes('blocked'))
  const before = await server.connections()

  const stream = new RedisStreamAdapter({ connection: server.connection })
  const dropped = (): number => Number(out.match(/(?<=dropped )\d+(?=\n)/g)?.at(-1) ?? 0)
  for (let n = 0; n < COUNT; n++) {
    await stream.publish('t', { type: 'big', data: { n, text: 'x'.repeat(2_000) } })
    // Never more ahead of it than the server keeps for it, however little of the processor it gets.
    if ((n + 1) % 250 === 0) await until(`it has read ${n + 1}`, () => dropped() >= n + 1 - SMALL, 30_000)
  }
  await stream.shutdown()
  await until('it has received the last', () => out.includes('stats'), 30_000)
  const { small, large, stats } = JSON.parse(out.slice(out.indexOf('{')))
  expect(large).toEqual(Array.from({ length: COUNT }, (_, n) => n))
  expect(small).toEqual([{ reason: 'overflow', topic: 't', missed: COUNT - SMALL }, ...large.slice(-SMALL)])
  expect(stats).toEqual({ reconnects: 0, dropped: COUNT - SMALL, gaps: 1 })
  expect(await server.connections()).toEqual(before)
  expect(before.length).toBeGreaterThan(0)

  child.stdin.end()
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(await server.connections()).toEqual([])
}, 60_000)
