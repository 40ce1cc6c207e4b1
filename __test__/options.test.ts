/** One table of options, one wording of what is wrong: whatever takes options, and wherever they are. */
import {
  createAdapters, createFlowWiring, createStreamCoordinator, createTriggerWiring, createWebhookWiring, createWiringRegistry, defineFlow, FileQueueAdapter,
  FileStoreAdapter, handleWebhook, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, NventError, RedisStoreAdapter, RedisStreamAdapter, startFlow,
  streamRun,
} from 'nvent-native'
import { expect, it } from 'vitest'

const messageOf = async (call: () => unknown): Promise<string> => {
  try {
    await call()
  }
  catch (error) {
    expect(error).toBeInstanceOf(NventError)
    expect((error as NventError).code).toBe('NVENT_INVALID')
    return (error as Error).message
  }
  throw new Error('it was taken')
}

it.each<[string, (options: any) => unknown]>([
  ['MemoryStoreAdapter', options => new MemoryStoreAdapter(options)],
  ['FileStoreAdapter', options => new FileStoreAdapter({ dataDir: 'x', ...options })],
  ['RedisStoreAdapter', options => new RedisStoreAdapter(options)],
  ['MemoryStreamAdapter', options => new MemoryStreamAdapter(options)],
  ['RedisStreamAdapter', options => new RedisStreamAdapter(options)],
  ['MemoryQueueAdapter', options => new MemoryQueueAdapter(options)],
  ['FileQueueAdapter', options => new FileQueueAdapter({ dataDir: 'x', ...options })],
  ['createStreamCoordinator', options => createStreamCoordinator(options)],
  ['createFlowWiring', options => createFlowWiring(options)],
  ['createWiringRegistry', options => createWiringRegistry(options)],
  ['createTriggerWiring', options => createTriggerWiring({ triggers: [], ...options })],
  ['createWebhookWiring', options => createWebhookWiring({ webhooks: [], ...options })],
  ['createAdapters', options => createAdapters(options)],
])('%s names an unknown option as the user wrote it, and what is known', async (_, call) => {
  expect(await messageOf(() => call({ unknwon: 1 }))).toMatch(/^unknwon: unknown option \(known: \w+/)
})

const unreadable: any = {
  get a() {
    throw new Error('a getter throws')
  },
}

it.each<[() => unknown, string]>([
  [() => new (FileStoreAdapter as any)(), 'dataDir: required'],
  [() => new FileStoreAdapter({ dataDir: '' }), 'dataDir: expected a non-empty string, got ""'],
  [() => new FileStoreAdapter({ dataDir: 'x', durability: 'disc' as 'disk' }), 'durability: "disc" is not known; did you mean "disk"? (known: os, disk)'],
  [() => new FileStoreAdapter({ dataDir: 'x', retention: { maxAgeMs: 0 } }), 'retention.maxAgeMs: expected a whole number from 1, got 0'],
  [() => new (FileQueueAdapter as any)({}), 'dataDir: required'],
  [() => new MemoryStoreAdapter({ bus: {} as any }), 'bus.publish: expected a function, got undefined'],
  [() => new MemoryStreamAdapter({ retain: { maxEvents: 1.5 } }), 'retain.maxEvents: expected a whole number from 1, got 1.5'],
  [() => new MemoryQueueAdapter({ defaultJobOptions: { attempts: NaN } }), 'defaultJobOptions.attempts: expected a whole number from 1 to 4294967295, got NaN'],
  [() => new MemoryQueueAdapter({ defaultJobOptions: { backoff: { type: 'fixed' } as any } }), 'defaultJobOptions.backoff.delay: required'],
  [() => new MemoryQueueAdapter({ defaultJobOptions: { removeOnFail: 'all' as any } }), 'defaultJobOptions.removeOnFail: expected true or false or a whole number from 0 to 4294967295 or an object, got "all"'],
  [() => new RedisStreamAdapter({ retain: {} as any }), 'retain.topics: required'],
  [() => new RedisStreamAdapter({ retain: { topics: ['a', 5 as any] } }), 'retain.topics[1]: expected a string, got 5'],
  [() => new RedisStoreAdapter({ connection: { sentinels: [{ port: 1 } as any] } }), 'connection.sentinels[0].host: required'],
  [() => new RedisStoreAdapter({ connection: { sentinels: [{ host: 'h' }] } }), 'connection: sentinels and name belong together: give both, or none'],
  [() => new RedisStoreAdapter({ connection: { port: 70_000 } }), 'connection.port: expected a whole number from 1 to 65535, got 70000'],
  [() => createStreamCoordinator({ channels: [{ name: 'a', types: ['*'] } as any] }), 'channels[0].topic: required'],
  [() => createStreamCoordinator({ channels: [{ name: 'a', topic: 'b', types: Array(1) } as any] }), 'channels[0].types[0]: expected a string, got null'],
  [() => createStreamCoordinator({ consumer: '' }), 'consumer: expected a non-empty string, got ""'],
  [() => createFlowWiring({ store: new MemoryStoreAdapter(), flows: (() => 5) as any }).start(), 'flows: expected an array of flows, got a number'],
  [() => createFlowWiring({ store: {} as any }).start(), 'store: is no store adapter, it has no append'],
  [() => createAdapters(unreadable), 'config: cannot be read (a getter throws)'],
  [() => defineFlow('f', unreadable), 'steps: cannot be read (a getter throws)'],
  [() => createWebhookWiring({ webhooks: [{ name: 'a', types: '*', url: 'https://h', headers: unreadable }] }), 'webhooks[0].headers: cannot be read (a getter throws)'],
  [() => streamRun('r', {} as any), 'request: expected a Request'],
  [() => handleWebhook('t', null as any), 'request: expected an object, got null'],
  [() => startFlow(defineFlow('f', { a: { run: () => {} } }), {}, { runId: '' }), 'options.runId: expected a non-empty string, got ""'],
  [() => createWiringRegistry({ streamCoordinator: { channels: [{ name: 'a', topic: 'b', types: 'c' } as any] } }), 'streamCoordinator.channels[0].types: expected an array, got "c"'],
  [() => createWiringRegistry({ flow: true as any }), 'flow: expected false or an object, got true'],
  [() => createWiringRegistry({ wirings: [{ start: () => {} } as any] }), 'wirings[0].stop: expected a function, got undefined'],
  [() => createAdapters({ store: { file: { datadir: 'x' } as any } }), 'store.file.datadir: unknown option; did you mean "dataDir"? (known: dataDir, durability, retention)'],
  [() => createAdapters({ queue: { defaultJobOptions: { delay: -1 } } }), 'queue.defaultJobOptions.delay: expected milliseconds from 0 to 316224000000, got -1'],
  [() => createAdapters({ store: { adapter: 'redis', redis: { url: 'redis://h/1', db: 2 } } }), 'store.redis.db: contradicts store.redis.url, which has another value: leave out one of the two'],
  [() => createAdapters({ store: { adapter: 'memory' }, stream: { adapter: 'redis', retain: { maxLen: 5 } } }), 'stream.retain.topics: required'],
])('%s is refused', async (call, message) => {
  expect(await messageOf(call)).toBe(message)
})

it.each([MemoryStoreAdapter, MemoryStreamAdapter, MemoryQueueAdapter, RedisStoreAdapter, RedisStreamAdapter])('null is no options: %o', async (Adapter) => {
  const adapter: any = new Adapter(null as any)
  await (adapter.close ?? adapter.shutdown).call(adapter)
})

it('no message shows a secret', async () => {
  const secrets = { url: ['hunter2'], password: { of: 'hunter2' }, username: ['hunter2'], sentinelPassword: { of: 'hunter2' } }
  for (const [option, value] of Object.entries(secrets)) {
    expect(await messageOf(() => new RedisStoreAdapter({ connection: { [option]: value } }))).toMatch(new RegExp(`^connection\\.${option}: expected a string, got an`))
  }
  for (const tls of ['hunter2', { key: 5 }, { ca: ['hunter2', 5] }]) {
    expect(await messageOf(() => new RedisStoreAdapter({ connection: { tls: tls as any } }))).not.toContain('hunter2')
  }
})

it('a memory stream of a configuration keeps as many events as one on Redis would', async () => {
  const { store, stream, queue } = await createAdapters({ store: { adapter: 'memory' }, stream: { retain: { maxLen: 2 } }, queue: { adapter: 'memory' } })
  for (const data of [1, 2, 3]) await stream.publish('t', { type: 'x', data })
  const seen: number[] = []
  await stream.subscribe('t', ({ data }) => seen.push(data), { fromBeginning: true })
  await stream.publish('t', { type: 'x', data: 4 })
  await expect.poll(() => seen).toEqual([2, 3, 4])
  await Promise.all([store.close(), stream.shutdown(), queue.close()])
})
