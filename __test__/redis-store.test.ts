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
  const number = db++ % 16
  await server.flush(number)
  return {
    open: options => new RedisStoreAdapter({ ...options, connection: { ...server.connection, db: number } }),
    dispose: async () => {},
  }
}, { backend: 'redis', sharedNames: true, durable: true })

it('makes the calls made before a close, though there was no connection yet, and leaves none', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection })
  const calls = Array.from({ length: 20 }, () => store.kv.increment('closing'))
  const closed = store.close()
  await rejects(store.kv.get('closing'), 'NVENT_CLOSED')
  expect(await Promise.all(calls)).toEqual(Array.from({ length: 20 }, (_, n) => n + 1))
  await closed
  expect(await server.connections()).toEqual([])
})

it('a write that was sent and not answered may have been applied; one that was not sent was not', async () => {
  const own = await RedisServer.start()
  const store = new RedisStoreAdapter({ connection: own.connection })
  await store.kv.set('k', 1)
  await own.cli('client', 'pause', '60000', 'write')
  const sent = store.append('s', { type: 'x' }).catch(error => error)
  await until('the server holds the write', async () => / flags=\S*b/.test(await own.cli('client', 'list')))
  await own.stop()
  expect(await sent).toMatchObject({ code: 'NVENT_UNAVAILABLE', retryable: true, maybeApplied: true, operation: 'append' })
  expect(await store.append('s', { type: 'x' }).catch(error => error)).toMatchObject({ code: 'NVENT_UNAVAILABLE', retryable: true, maybeApplied: false })
  await store.close()
}, 30_000)

it('refuses to replace what is no kv value', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection })
  await store.append('both', { type: 'x' })
  await rejects(store.kv.set('both', 1), 'NVENT_TYPE', /kv\.set/)
  expect(await store.read('both')).toHaveLength(1)
  await store.close()
})

it('refuses names of its own keys and index keys that would share metadata, whatever the call', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection, prefix: 'app' })
  for (const name of ['app:~feed', 'app:~documents:c', 'app:~']) {
    await rejects(store.append(name, { type: 'x' }), 'NVENT_INVALID', /reserved/)
    await rejects(store.stream.delete(name), 'NVENT_INVALID', /reserved/)
    await rejects(store.kv.set(name, 1), 'NVENT_INVALID', /reserved/)
    await rejects(store.kv.increment(name), 'NVENT_INVALID', /reserved/)
    await rejects(store.kv.delete(name), 'NVENT_INVALID', /reserved/)
    await rejects(store.index.add(name, 'a', 1), 'NVENT_INVALID', /reserved/)
  }
  await rejects(store.index.add('a:meta:b', 'c', 1), 'NVENT_INVALID', /ambiguous/)
  await rejects(store.index.updateWithRetry('a:meta', 'c', { n: 1 }), 'NVENT_INVALID', /ambiguous/)
  await store.index.add('a', 'b:meta:c', 1, { n: 1 })
  expect(await store.index.get('a', 'b:meta:c')).toMatchObject({ metadata: { n: 1 } })
  await store.close()
})

it('merges thousands of fields at once, and refuses more than an entry may have', async () => {
  const store = new RedisStoreAdapter({ connection: server.connection })
  const fields = (n: number) => Object.fromEntries(Array.from({ length: n }, (_, i) => [`field${i}`, i]))
  await store.index.add('wide', 'a', 1, fields(10))
  expect(await store.index.update('wide', 'a', fields(9_000))).toBe(true)
  expect((await store.index.get('wide', 'a'))?.metadata).toEqual({ ...fields(9_000), version: 1 })
  await rejects(store.index.update('wide', 'a', fields(20_000)), 'NVENT_INVALID', /at most 10000/)
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
