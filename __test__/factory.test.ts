import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import {
  createAdapters, MemoryStoreAdapter, MemoryStreamAdapter, RedisStoreAdapter, setAdapters, shutdownAdapters, useQueueAdapter, useStoreAdapter, useStreamAdapter,
} from 'nvent-native'
import type { AdaptersConfig, QueueAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { RedisServer } from './support/redis'
import { rejects } from './support/until'

let dir: string
const memory: AdaptersConfig = { store: { adapter: 'memory' }, stream: { adapter: 'memory' }, queue: { adapter: 'memory' } }

beforeEach(async () => { dir = await mkdtemp(path.join(tmpdir(), 'nvent-factory-')) })
afterEach(async () => {
  await shutdownAdapters()
  await rm(dir, { recursive: true })
})

it('says what to do where nothing is current', async () => {
  for (const use of [useStoreAdapter, useStreamAdapter, useQueueAdapter]) await rejects(use, 'NVENT_NOT_FOUND', /createAdapters.*setAdapters/)
})

it('creates, opens and makes current what is configured', async () => {
  const adapters = await createAdapters(memory)
  expect(useStoreAdapter()).toBe(adapters.store)
  expect(useStreamAdapter()).toBe(adapters.stream)
  expect(useQueueAdapter()).toBe(adapters.queue)
  expect(await adapters.store.health()).toMatchObject({ ok: true, backend: 'memory' })
  expect(await adapters.stream.health()).toMatchObject({ ok: true, backend: 'memory' })
})

it('uses the file store by default, and puts it where connections say', async () => {
  const adapters = await createAdapters({ connections: { file: { dataDir: dir } } })
  expect(await adapters.store.health()).toMatchObject({ ok: true, backend: 'file' })
  expect(await adapters.stream.health()).toMatchObject({ ok: true, backend: 'memory' })
  await adapters.store.append('s', { type: 'x' })
  expect(await readdir(path.join(dir, 'store'))).not.toEqual([])
})

it('shuts down what is current, which is then gone', async () => {
  const { store, stream } = await createAdapters(memory)
  await shutdownAdapters()
  await rejects(store.read('s'), 'NVENT_CLOSED')
  await rejects(stream.publish('t', { type: 'x', data: 1 }), 'NVENT_CLOSED')
  await rejects(useStoreAdapter, 'NVENT_NOT_FOUND')
  await shutdownAdapters()
})

it('shuts down those that are given, and leaves the current ones', async () => {
  const { store } = await createAdapters(memory)
  const other = new MemoryStoreAdapter()
  await shutdownAdapters({ store: other })
  await rejects(other.read('s'), 'NVENT_CLOSED')
  expect(useStoreAdapter()).toBe(store)
  expect(await store.read('s')).toEqual([])
})

it('takes objects for the store, the stream and the queue, and opens them', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  const calls: string[] = []
  const queue = Object.fromEntries(['init', 'enqueue', 'getJob', 'getJobs', 'on', 'registerWorker', 'startProcessingQueue', 'close']
    .map(method => [method, async () => void calls.push(method)])) as unknown as QueueAdapter
  const adapters = await createAdapters({ store, stream, queue })
  expect(adapters).toEqual({ store, stream, queue })
  expect([useStoreAdapter(), useStreamAdapter(), useQueueAdapter()]).toEqual([store, stream, queue])
  expect(calls).toEqual(['init'])
  await shutdownAdapters()
  expect(calls).toEqual(['init', 'close'])
  await rejects(store.read('s'), 'NVENT_CLOSED')
})

it('closes those that were opened where another one cannot be, and says why', async () => {
  await writeFile(path.join(dir, 'no-folder'), '')
  const calls: string[] = []
  const object = (end: string, methods: string[]): any => Object.fromEntries(['init', end, ...methods].map(method => [method, async () => {
    await turn()
    calls.push(method)
  }]))
  const failed = createAdapters({
    store: object('close', ['append', 'read', 'stream']), stream: object('shutdown', ['publish', 'subscribe']),
    queue: { adapter: 'file', file: { dataDir: path.join(dir, 'no-folder') } },
  })
  await rejects(failed, 'NVENT_IO', /no-folder/)
  expect(calls.slice().sort()).toEqual(['close', 'init', 'init', 'shutdown'])
  expect(calls.indexOf('close')).toBeGreaterThan(calls.indexOf('shutdown'))
  await rejects(useStoreAdapter, 'NVENT_NOT_FOUND')
})

it('takes an object of the application on the surface of nvent alone', async () => {
  const store = { stream: { append: async () => ({}), read: async () => [] }, close: async () => {} }
  const adapters = await createAdapters({ ...memory, store: store as any })
  expect(adapters.store).toBe(store)
})

it.each([
  ['store', { stream: { append: async () => ({}) } }, /^store: is no store adapter, it has no read, close/],
  ['stream', { publish: async () => {} }, /^stream: is no stream adapter, it has no subscribe, shutdown/],
  ['queue', { enqueue: async () => '' }, /^queue: is no queue adapter, it has no init, getJob/],
])('names what an object for the %s lacks', async (kind, object, message) => {
  await rejects(createAdapters({ ...memory, [kind]: object } as any), 'NVENT_INVALID', message)
})

it('sets one kind and leaves the others', async () => {
  const { stream } = await createAdapters(memory)
  const store = new MemoryStoreAdapter()
  const before = useStoreAdapter()
  setAdapters({ store })
  expect(useStoreAdapter()).toBe(store)
  expect(useStreamAdapter()).toBe(stream)
  await before.close()
})

it('closes every kind although one fails', async () => {
  const [store, stream] = [new MemoryStoreAdapter(), new MemoryStreamAdapter()]
  const queue = { enqueue: async () => '', close: async () => { throw new Error('stuck') } } as unknown as QueueAdapter
  setAdapters({ store, stream, queue })
  await expect(shutdownAdapters()).rejects.toThrow('stuck')
  await rejects(store.read('s'), 'NVENT_CLOSED')
  await rejects(stream.publish('t', { type: 'x', data: 1 }), 'NVENT_CLOSED')
})

it.each<[string, any, RegExp]>([
  ['an unknown store', { store: { adapter: 'fiel' } }, /store\.adapter.*fiel.*did you mean "file".*memory/],
  ['an unknown stream', { stream: { adapter: 'kafka' } }, /stream\.adapter.*kafka.*memory/],
  ['an unknown queue', { queue: { adapter: 'filee' } }, /queue\.adapter.*filee.*file/],
  ['a queue on Redis', { queue: { adapter: 'redis' } }, /^queue\.adapter.*BullMQ.*Nuxt.*adapter-queue-redis.*createAdapters\(\{ queue \}\)/],
  ['a misspelt section', { stor: {} }, /stor.*did you mean "store"/],
  ['a misspelt option', { store: { adaptor: 'memory' } }, /^store\.adaptor.*did you mean "adapter"/],
  ['a misspelt option further in', { store: { adapter: 'file', file: { datadir: 'x' } } }, /datadir.*did you mean "dataDir"/],
  ['a misspelt connection', { connections: { redis: { hots: 'x' } } }, /hots.*did you mean "host"/],
  ['another type', { stream: { adapter: 'memory', prefix: 5 } }, /prefix/],
  ['a name that is none', { store: { adapter: 5 } }, /adapter/],
  ['no configuration at all', 'memory', /config/],
])('refuses %s and says what is known', async (_what, config, message) => {
  await rejects(createAdapters(config), 'NVENT_INVALID', message)
  await rejects(useStoreAdapter, 'NVENT_NOT_FOUND')
})

it('refuses to make current what is no adapter', async () => {
  for (const adapters of [{ store: {} }, { stream: {} }, { queue: {} }, { stor: new MemoryStoreAdapter() }, 5] as any[]) {
    await rejects(() => setAdapters(adapters), 'NVENT_INVALID', /adapters/)
  }
})

it('refuses a queue of the application that lacks methods, and names them', async () => {
  await rejects(createAdapters({ store: { adapter: 'memory' }, queue: { enqueue() {} } as any }), 'NVENT_INVALID', /^queue: is no queue adapter, it has no init, getJob/)
})

it('merges the connection of an adapter with the shared one, field by field', async () => {
  const server = await RedisServer.start()
  try {
    const { store } = await createAdapters({
      ...memory, store: { adapter: 'redis', redis: { db: 3 } }, connections: { redis: { url: `redis://127.0.0.1:${server.port}` } },
    })
    await store.kv.set('k', 'in 3')
    const other = new RedisStoreAdapter({ bus: null, connection: { port: server.port, db: 3 } })
    expect(await other.kv.get('k')).toBe('in 3')
    await other.close()
    await shutdownAdapters()
  }
  finally {
    await server.stop()
  }
})
