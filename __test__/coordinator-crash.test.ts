import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileStoreAdapter, createEventBus, createStreamCoordinator, MemoryStoreAdapter, MemoryStreamAdapter, RedisStoreAdapter, RedisStreamAdapter } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RedisServer } from './support/redis'
import { Inbox, rejects, until } from './support/until'

const ROUNDS = 25
const EVENTS = 200
const script = fileURLToPath(new URL('fixtures/coordinates.mjs', import.meta.url))

let redis: RedisServer
let dir: string
beforeAll(async () => {
  redis = await RedisServer.start()
  dir = await mkdtemp(path.join(tmpdir(), 'nvent-coordinator-'))
})
afterAll(async () => {
  await redis.stop()
  await rm(dir, { recursive: true, force: true })
})

/** Kills the process again and again while it appends, and returns what was acknowledged. */
async function killRepeatedly(kind: string, place: string, log: string): Promise<number[]> {
  let acknowledged = ''
  for (let round = 0; round <= ROUNDS; round++) {
    const isLast = round === ROUNDS
    const child = spawn(process.execPath, [script, kind, place, log, String(round * EVENTS), String(isLast ? 0 : EVENTS)], { stdio: ['ignore', 'pipe', 'inherit'] })
    const closed = once(child, 'close')
    const alive = randomInt(1, EVENTS * 3)
    let size = 0
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      // A line that was cut off was not acknowledged to anybody.
      acknowledged += text
      size += text.length
      if (!isLast && size > alive) child.kill('SIGKILL')
    })
    const [code] = await closed
    if (isLast) expect(code).toBe(0)
    if (!acknowledged.endsWith('\n')) acknowledged = acknowledged.slice(0, acknowledged.lastIndexOf('\n') + 1)
  }
  return acknowledged.split('\n').filter(Boolean).map(Number)
}

it.each([['file', 'object'], ['redis', 'object'], ['redis', 'redis']])('%s store, stream is %s: what was acknowledged is published, whenever the process is killed', async (kind, stream) => {
  await redis.flush(0)
  const place = kind === 'file' ? path.join(dir, `${stream}-store`) : String(redis.port)
  const log = stream === 'redis' ? 'redis' : path.join(dir, `${kind}.log`)
  const acknowledged = await killRepeatedly(kind, place, log)
  const published = new Set<number>()
  if (log === 'redis') {
    const reader = new RedisStreamAdapter({ connection: { port: redis.port }, retain: { topics: ['store-sync:*'], maxLen: 100_000 } })
    await Promise.all(Array.from({ length: 7 }, (_, n) => reader.subscribe(`store-sync:append:s${n}`, ({ data }) => void published.add(data.event.data), { fromBeginning: true, buffer: 100_000 })))
    await until('everything is read', () => acknowledged.every(n => published.has(n)))
    await reader.shutdown()
  }
  else {
    for (const line of (await readFile(log, 'utf8')).split('\n')) published.add(Number(line.split(' ')[1]))
  }
  expect(acknowledged.filter(n => !published.has(n))).toEqual([])
  expect(acknowledged.length).toBeGreaterThan(0)
}, 120_000)

it('a stream that is down loses nothing, keeps the order of each subject, and slows no append', async () => {
  const bus = createEventBus()
  const store = new FileStoreAdapter({ bus, dataDir: path.join(dir, 'outage') })
  const arrived: Array<[string, number]> = []
  let down = true
  const stream = { publish: async (topic: string, { data }: any) => {
    if (down) throw new Error('down')
    arrived.push([data.subject, data.event.data])
  } }
  const coordinator = createStreamCoordinator({ bus, stream: stream as any, store, enableFlowEvents: false })
  await coordinator.start()
  for (let n = 0; n < 300; n++) await store.append(`s${n % 3}`, { type: 'a', data: n })
  await until('it has tried', () => coordinator.stats()['retries'] > 3)
  down = false
  await until('everything has arrived', () => new Set(arrived.map(([, n]) => n)).size === 300)
  for (const subject of ['s0', 's1', 's2']) {
    const firsts = [...new Set(arrived.filter(([on]) => on === subject).map(([, n]) => n))]
    expect(firsts).toEqual(firsts.toSorted((a, b) => a - b))
  }
  await coordinator.stop()
  expect(coordinator.stats()).toMatchObject({ failed: 0, dropped: 0 })
  await store.close()
})

it('messages carry the id and the position of their event', async () => {
  const bus = createEventBus()
  const store = new FileStoreAdapter({ bus, dataDir: path.join(dir, 'metadata') })
  const stream = new MemoryStreamAdapter()
  const coordinator = createStreamCoordinator({ bus, stream, store, enableFlowEvents: false, instanceId: 'here' })
  await coordinator.start()
  const inbox = new Inbox()
  await stream.subscribe('store-sync:append:s', inbox.take)
  const { id } = await store.append('s', { type: 'a' })
  const [message] = await inbox.atLeast(1)
  expect(message.metadata).toEqual({ instanceId: 'here', eventId: id, position: await store.feed.head() })
  await coordinator.stop()
  await stream.shutdown()
  await store.close()
})

/** An instance: what each process has. */
function instance(instanceId: string, createStore: (bus: any) => any, stream: any): any {
  const bus = createEventBus()
  const store = createStore(bus)
  return { instanceId, store, stream, inbox: new Inbox(), coordinator: createStreamCoordinator({ bus, stream, store, enableFlowEvents: false, instanceId }) }
}

async function end(instances: any[]): Promise<void> {
  for (const { coordinator } of instances) await coordinator.stop()
  for (const { stream, store } of instances) {
    await stream.shutdown()
    await store.close()
  }
}

it.each(['file', 'redis'])('%s store: every coordinator with a stream of its own publishes all of the store, and names who appended', async (kind) => {
  await redis.flush(0)
  const dataDir = path.join(dir, 'second')
  const createStore = (bus: any): any => kind === 'file' ? new FileStoreAdapter({ bus, dataDir }) : new RedisStoreAdapter({ bus, connection: redis.connection })
  const instances = ['a', 'b'].map(id => instance(id, createStore, new MemoryStreamAdapter()))
  for (const { coordinator, stream, inbox } of instances) {
    await coordinator.start()
    await stream.subscribe('store-sync:append:*', ({ data, metadata }: any) => inbox.take([data.subject, metadata.instanceId]))
  }
  await instances[0].store.append('of a', { type: 'a' })
  await instances[1].store.append('of b', { type: 'a' })
  for (const { inbox, instanceId } of instances) {
    const [first, second] = await inbox.atLeast(2)
    // A file store is one process, in which the publisher is the instance.
    expect([first, second]).toEqual(kind === 'file' ? [['of a', instanceId], ['of b', instanceId]] : [['of a', 'a'], ['of b', 'b']])
  }
  const consumers = (await instances[0].store.consumers()).map(({ name }: any) => name)
  expect(consumers).toEqual(['stream-coordinator', 'stream-coordinator:2'])
  await instances[1].coordinator.stop()
  // One that starts later publishes what is new, not what the others have published.
  await instances[0].store.append('later', { type: 'a' })
  await instances[0].inbox.atLeast(3)
  expect(instances[0].inbox.items.map(([subject]: any) => subject)).toEqual(['of a', 'of b', 'later'])
  expect((await instances[0].store.consumers())).toHaveLength(1)
  await end(instances)
})

it.each([false, true])('one coordinator publishes for all on a Redis stream (retained: %s), and ignoreOwn is about who appended', async (isRetained) => {
  await redis.flush(0)
  const retain = isRetained ? { topics: ['store-sync:append:x'] } : undefined
  const instances = ['a', 'b'].map(id => instance(id, bus => new RedisStoreAdapter({ bus, connection: redis.connection }), new RedisStreamAdapter({ connection: redis.connection, retain })))
  const others = [new Inbox(), new Inbox()]
  for (const [i, { coordinator, stream, inbox }] of instances.entries()) {
    await coordinator.start()
    const take = (into: Inbox) => ({ data, metadata }: any) => into.take([data.event.data, metadata.instanceId])
    await stream.subscribe('store-sync:append:x', take(inbox))
    await stream.subscribe('store-sync:append:x', take(others[i]!), { ignoreOwn: true })
  }
  for (let n = 0; n < 6; n++) await instances[n % 2].store.append('x', { type: 'a', data: n })
  const all = Array.from({ length: 6 }, (_, n) => [n, 'ab'[n % 2]])
  for (const { inbox } of instances) expect(await inbox.atLeast(6)).toEqual(all)
  expect(await others[0]!.atLeast(3)).toEqual(all.filter(([, by]) => by === 'b'))
  expect(await others[1]!.atLeast(3)).toEqual(all.filter(([, by]) => by === 'a'))
  // A message may be received before its publisher knows that it was.
  const routed = (): number[] => instances.map(({ coordinator }) => coordinator.stats().routed['store-sync'])
  await until('all are counted', () => routed().reduce((sum, count) => sum + count) === 6)
  expect(routed()).toEqual([6, 0])
  await end(instances)
})

it('a coordinator that stands by takes over when the one at work is killed, within the time that docs/guarantees.md promises', async () => {
  await redis.flush(0)
  const child = spawn(process.execPath, [script, 'redis', String(redis.port), 'redis', '0', 'stay'], { stdio: ['ignore', 'ignore', 'inherit'] })
  const closed = once(child, 'close')
  const standby = instance('standby', bus => new RedisStoreAdapter({ bus, connection: redis.connection }), new RedisStreamAdapter({ connection: redis.connection }))
  await standby.stream.subscribe('store-sync:append:x', ({ data }: any) => standby.inbox.take(data.event.type))
  await until('the process has started', async () => (await standby.store.consumers()).length > 0)
  await standby.store.append('x', { type: 'before' })
  await standby.inbox.atLeast(1)
  await standby.coordinator.start()
  child.kill('SIGKILL')
  await closed
  await standby.store.append('x', { type: 'after' })
  await until('the other one publishes', () => standby.inbox.items.includes('after'), 15_000)
  await end([standby])
})

it('refuses what cannot be at least once', async () => {
  const stream = new MemoryStreamAdapter()
  await rejects(() => createStreamCoordinator({ stream, delivery: 'exactly-once' as any }), 'NVENT_INVALID', /^delivery: "exactly-once"/)
  const coordinator = createStreamCoordinator({ stream, store: new MemoryStoreAdapter(), delivery: 'at-least-once' })
  await rejects(() => coordinator.start() as Promise<void>, 'NVENT_INVALID', /needs a file or Redis store/)
  await stream.shutdown()
})
