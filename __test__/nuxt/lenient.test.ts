import { MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lenientQueue, lenientStore, lenientStream } from '../../dist/nuxt/runtime/lenient.js'
import { Inbox } from '../support/until.js'

const warnings: string[] = []
const record = (warning: Error & { code?: string }) => {
  if (warning.code === 'NVENT_IGNORED') warnings.push(warning.message)
}
beforeEach(() => void process.on('warning', record))
afterEach(() => {
  process.off('warning', record)
  warnings.length = 0
})
/** Warnings are emitted in the next turn. */
const warned = async () => {
  await new Promise(resolve => setImmediate(resolve))
  return warnings.splice(0)
}

test('a store reads text as numbers and one type as a list, and ignores what it does not know with one warning', async () => {
  await using store = new MemoryStoreAdapter({ bus: null })
  lenientStore(store)
  const [first] = await Promise.all(['a', 'b', 'a'].map(type => store.stream.append('s', { type })))
  const types = async (opts: any) => (await store.stream.read('s', opts)).map(({ type }) => type)
  expect(await types({ limit: '2' })).toEqual(['a', 'b'])
  expect(await types({ limit: 0, types: 'b' })).toEqual(['b'])
  expect(await types({ limit: null, order: 'desc', after: first!.id })).toEqual(['a', 'b'])
  expect(await types('nothing')).toEqual(['a', 'b', 'a'])
  expect(await warned()).toEqual([])
  expect([await types({ lmit: 1, constructor: 1 }), await types({ lmit: 2, offset: 1 })]).toEqual([['a', 'b', 'a'], ['a', 'b', 'a']])
  expect(await warned()).toEqual(['lmit', 'constructor', 'offset'].map(name => `stream.read: '${name}' is not an option of the native adapters and is ignored`))
  await expect(types({ limit: 'many' })).rejects.toMatchObject({ code: 'NVENT_INVALID' })
  await expect(types({ limit: ' ' })).rejects.toMatchObject({ code: 'NVENT_INVALID' })

  for (const n of [1, 2, 3]) await store.index.add('i', `e${n}`, n, { n })
  const ids = async (opts: any) => (await store.index.read('i', opts)).map(({ id }) => id)
  expect([await ids({ limit: '1', offset: '1' }), await ids({ filter: { n: 3 }, limit: 0 })]).toEqual([['e2'], ['e3']])
})

test('a value without a lifetime is kept, and undefined is not stored', async () => {
  await using store = new MemoryStoreAdapter({ bus: null })
  lenientStore(store)
  for (const [key, ttl] of [['none', undefined], ['null', null], ['zero', 0], ['text', '60'], ['negative', -1]] as const) await store.kv.set(key, key, ttl as never)
  await store.kv.set('nothing', undefined as never)
  expect(await Promise.all(['none', 'null', 'zero', 'text', 'negative', 'nothing'].map(key => store.kv.get(key)))).toEqual(['none', 'null', 'zero', 'text', 'negative', null])
  expect(await warned()).toEqual(['kv.set: \'value\' is undefined: nothing is stored'])
})

test('a queue reads the options of jobs, and 0 attempts or ms of timeout as none', async () => {
  await using queue = new MemoryQueueAdapter()
  lenientQueue(queue)
  const enqueue = (opts?: any) => queue.enqueue('q', { name: 'n', data: {}, ...opts === undefined ? {} : { opts } })
  await enqueue({ jobId: 'a', attempts: '3', timeout: 0, priority: '2', delay: '0', repeatable: true })
  await enqueue({ jobId: 'b', attempts: 0, delay: '60000' })
  await enqueue()
  expect(await queue.getJob('q', 'a')).toMatchObject({ state: 'waiting', opts: { attempts: 3, priority: 2 } })
  expect(await queue.getJob('q', 'b')).toMatchObject({ state: 'delayed', opts: { delay: 60_000 } })
  const ids = async (query: any) => (await queue.getJobs('q', query)).map(({ id }) => id)
  expect([await ids({ state: 'delayed' }), (await ids({ state: ['waiting', 'delayed'], limit: '0' })).length, (await ids({ limit: '1' })).length]).toEqual([['b'], 3, 1])
  await queue.schedule('q', { name: 'n', data: {}, opts: { jobId: 'c', attempts: '2' } } as any, { delay: '60000', every: 5 } as any)
  expect(await queue.getJobs('q', { state: ['delayed'] })).toHaveLength(2)
  expect(await warned()).toEqual([
    'enqueue opts: \'repeatable\' is not an option of the native adapters and is ignored', 'schedule: \'every\' is not an option of the native adapters and is ignored',
  ])
})

test('a stream reads the options of subscriptions', async () => {
  const stream = new MemoryStreamAdapter()
  lenientStream(stream)
  const [all, some] = [new Inbox(), new Inbox()]
  await stream.subscribe('t', all.take, { buffer: '0', from: 'now' } as any)
  await stream.subscribe('t', some.take, { filter: 'b', buffer: '5' } as any)
  for (const type of ['a', 'b']) await stream.publish('t', { type, data: {} })
  expect((await all.atLeast(2)).map(({ type }) => type)).toEqual(['a', 'b'])
  expect((await some.atLeast(1)).map(({ type }) => type)).toEqual(['b'])
  expect(await warned()).toEqual(['subscribe: \'from\' is not an option of the native adapters and is ignored'])
  await stream.shutdown()
})
