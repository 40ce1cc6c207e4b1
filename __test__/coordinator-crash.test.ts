import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileStoreAdapter, createEventBus, createStreamCoordinator, MemoryStoreAdapter, MemoryStreamAdapter, RedisStreamAdapter } from 'nvent-native'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RedisServer } from './support/redis'
import { Inbox, rejects, until } from './support/until'

const ROUNDS = 12
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

it('a second coordinator on a store, with a stream of its own, follows its bus', async () => {
  const dataDir = path.join(dir, 'second')
  const threads = await Promise.all([0, 1].map(async () => {
    const bus = createEventBus()
    const store = new FileStoreAdapter({ bus, dataDir })
    const stream = new MemoryStreamAdapter()
    const inbox = new Inbox()
    await stream.subscribe('store-sync:append:*', message => inbox.take(message.data.subject))
    return { bus, store, stream, inbox, coordinator: createStreamCoordinator({ bus, stream, store, enableFlowEvents: false }) }
  }))
  for (const { coordinator } of threads) await coordinator.start()
  await threads[1]!.store.append('of the second', { type: 'a' })
  expect(await threads[0]!.inbox.atLeast(1)).toEqual(['of the second'])
  expect(await threads[1]!.inbox.atLeast(1)).toEqual(['of the second'])
  for (const { coordinator, store, stream } of threads) {
    await coordinator.stop()
    await stream.shutdown()
    await store.close()
  }
})

it('refuses what cannot be at least once', async () => {
  const stream = new MemoryStreamAdapter()
  await rejects(() => createStreamCoordinator({ stream, delivery: 'exactly-once' as any }), 'NVENT_INVALID', /options\.delivery: "exactly-once"/)
  const coordinator = createStreamCoordinator({ stream, store: new MemoryStoreAdapter(), delivery: 'at-least-once' })
  await rejects(() => coordinator.start() as Promise<void>, 'NVENT_INVALID', /needs a file or Redis store/)
  await stream.shutdown()
})
