/** Every call waits for its operation: where that fails later, on another thread or on Redis, the call rejects. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileQueueAdapter, FileStoreAdapter, RedisStoreAdapter, RedisStreamAdapter } from 'nvent-native'
import type { ErrorCode, StoreAdapter } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RedisServer } from './support/redis'

let dir: string
let noFolder: string
let port: number
const unhandled: unknown[] = []
const record = (error: unknown): unknown => unhandled.push(error)
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'nvent-failing-'))
  noFolder = join(dir, 'no-folder')
  await writeFile(noFolder, '')
  const server = await RedisServer.start()
  port = server.port
  await server.stop()
  process.on('unhandledRejection', record)
})
afterAll(async () => {
  process.off('unhandledRejection', record)
  await rm(dir, { recursive: true })
  expect(unhandled).toEqual([])
})

type Calls<T> = Array<[name: string, call: (adapter: T) => Promise<unknown>]>

const STORE: Calls<StoreAdapter> = [
  ['init', store => store.init()],
  ['append', store => store.append('s', { type: 'x' })],
  ['read', store => store.read('s')],
  ['stream.append', store => store.stream.append('s', { type: 'x' })],
  ['stream.read', store => store.stream.read('s')],
  ['stream.delete', store => store.stream.delete('s')],
  ['kv.get', store => store.kv.get('k')],
  ['kv.set', store => store.kv.set('k', 1)],
  ['kv.set with a lifetime', store => store.kv.set('k', 1, 5)],
  ['kv.delete', store => store.kv.delete('k')],
  ['kv.clear', store => store.kv.clear('k*')],
  ['kv.increment', store => store.kv.increment('k')],
  ['index.add', store => store.index.add('i', 'a', 1)],
  ['index.get', store => store.index.get('i', 'a')],
  ['index.read', store => store.index.read('i')],
  ['index.count', store => store.index.count('i')],
  ['index.update', store => store.index.update('i', 'a', { n: 1 })],
  ['index.updateWithRetry', store => store.index.updateWithRetry('i', 'a', { n: 1 })],
  ['index.increment', store => store.index.increment('i', 'a', 'n')],
  ['index.delete', store => store.index.delete('i', 'a')],
  ['indexAdd', store => store.indexAdd('i', 'a', 1)],
  ['indexUpdateWithRetry', store => store.indexUpdateWithRetry('i', 'a', { n: 1 })],
  ['save', store => store.save('c', 'a', {})],
  ['get', store => store.get('c', 'a')],
  ['list', store => store.list('c')],
  ['delete', store => store.delete('c', 'a')],
  ['feed.read', store => store.feed.read()],
  ['feed.head', store => store.feed.head()],
  ['subjects', store => store.subjects()],
  ['consumers', store => store.consumers()],
  ['consume', store => store.consume('c', () => {})],
  ['parked', store => store.parked('c')],
  ['replay', store => store.replay('c')],
  ['deleteConsumer', store => store.deleteConsumer('c')],
]
const JOB = { name: 'a', data: 1 }
const QUEUE: Calls<FileQueueAdapter> = [
  ['init', queue => queue.init()],
  ['enqueue', queue => queue.enqueue('q', JOB)],
  ['schedule', queue => queue.schedule('q', JOB, { delay: 1 })],
  ['getJob', queue => queue.getJob('q', 'a')],
  ['getJobs', queue => queue.getJobs('q')],
  ['getJobCounts', queue => queue.getJobCounts('q')],
  ['getScheduledJobs', queue => queue.getScheduledJobs('q')],
  ['removeScheduledJob', queue => queue.removeScheduledJob('a')],
  ['removeJob', queue => queue.removeJob('q', 'a')],
  ['retryJob', queue => queue.retryJob('q', 'a')],
  ['isPaused', queue => queue.isPaused('q')],
  ['pause', queue => queue.pause('q')],
  ['resume', queue => queue.resume('q')],
  ['backup', queue => queue.backup(join(dir, 'copy'))],
]
const STREAM: Calls<RedisStreamAdapter> = [
  ['init', stream => stream.init()],
  ['publish', stream => stream.publish('t', { type: 'x', data: 1 })],
  ['parked', stream => stream.parked('t', 'g')],
  ['replayParked', stream => stream.replayParked('t', 'g')],
]

/** Makes each call on an adapter of its own, all at once: on Redis each waits until it gives up. Returns the codes of their errors. */
async function codes<T extends AsyncDisposable>(calls: Calls<T>, open: () => T): Promise<Record<string, ErrorCode | undefined>> {
  return Object.fromEntries(await Promise.all(calls.map(async ([name, call]) => {
    await using adapter = open()
    return [name, await call(adapter).then(() => undefined, error => error.code)]
  })))
}
const all = (calls: Calls<any>, code: ErrorCode): Record<string, ErrorCode> => Object.fromEntries(calls.map(([name]) => [name, code]))

it('a file store on a folder that is none: every call rejects', async () => {
  const calls: Calls<FileStoreAdapter> = [...STORE, ['backup', store => store.backup(join(dir, 'copy'))], ['verify', store => store.verify()]]
  expect(await codes(calls, () => new FileStoreAdapter({ bus: null, dataDir: noFolder }))).toEqual(all(calls, 'NVENT_IO'))
})

it('a file queue on a folder that is none: every call rejects', async () => {
  expect(await codes(QUEUE, () => new FileQueueAdapter({ dataDir: noFolder }))).toEqual(all(QUEUE, 'NVENT_IO'))
})

it('a store on Redis that is away: every call rejects', async () => {
  expect(await codes(STORE, () => new RedisStoreAdapter({ bus: null, connection: { port } }))).toEqual(all(STORE, 'NVENT_UNAVAILABLE'))
})

it('a stream on Redis that is away: every call rejects', async () => {
  const open = (): RedisStreamAdapter => new RedisStreamAdapter({ connection: { port }, retain: { topics: ['t'] } })
  expect(await codes(STREAM, open)).toEqual(all(STREAM, 'NVENT_UNAVAILABLE'))
})
