import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { RedisStoreAdapter } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { storeConformance } from './conformance/store'
import { RedisServer } from './support/redis'
import { rejects, until } from './support/until'

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

it('makes the calls made before a close, though there was no connection yet, and leaves none', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection })
  const calls = Array.from({ length: 20 }, () => store.kv.increment('closing'))
  const closed = store.close()
  await rejects(store.kv.get('closing'), 'NVENT_CLOSED')
  expect(await Promise.all(calls)).toEqual(Array.from({ length: 20 }, (_, n) => n + 1))
  await closed
  expect(await server.connections()).toEqual([])
})

it('refuses to replace what is no kv value', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection })
  await store.append('both', { type: 'x' })
  await rejects(store.kv.set('both', 1), 'NVENT_TYPE', /kv\.set/)
  expect(await store.read('both')).toHaveLength(1)
  await store.close()
})

it.each(['up', 'down'])('closes within seconds and lets the process exit while Redis is %s', async (state) => {
  const own = await RedisServer.start()
  const fixture = fileURLToPath(new URL('fixtures/closes-while-down.mjs', import.meta.url))
  const child = spawn(process.execPath, [fixture, String(own.port)], { stdio: ['pipe', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.setEncoding('utf8').on('data', text => out += text)
  await until('it is in use', () => out.includes('ready'))
  // Two of the store, and of the stream one for commands, one for subscriptions and one for the group.
  await until('all are connected', async () => (await own.connections()).length === 5)
  if (state === 'down') await own.stop()
  child.stdin.end()
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(JSON.parse(out.slice(out.indexOf('[')))).toEqual(Array.from({ length: 2 }, () => state === 'up' ? 'made' : 'NVENT_UNAVAILABLE'))
  if (state === 'up') expect(await own.connections()).toEqual([])
  await own.stop()
}, 20_000)
