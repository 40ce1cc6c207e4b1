import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileQueueAdapter, FileStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import type { StoreAdapter } from 'nvent-native'
import { Webhook } from 'standardwebhooks'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Receiver, type Received } from './support/receiver'
import { RedisServer } from './support/redis'
import { until } from './support/until'

const ROUNDS = 10
const EVENTS = 15
const verifier = new Webhook('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
const script = fileURLToPath(new URL('fixtures/delivers-webhooks.mjs', import.meta.url))

let receiver: Receiver
beforeEach(async () => {
  receiver = await Receiver.start()
})
afterEach(() => receiver.stop())

class Instance {
  output = ''
  readonly child: ChildProcess
  readonly closed: Promise<unknown>

  constructor(where: string, first: number, count: number) {
    this.child = spawn(process.execPath, [script, where, receiver.url, String(first), String(count)], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.child.stdout!.setEncoding('utf8').on('data', text => this.output += text)
    this.closed = once(this.child, 'close')
  }

  get appended(): number[] {
    return [...this.output.matchAll(/^appended (\d+)$/gm)].map(([, n]) => Number(n))
  }

  async ready(): Promise<void> {
    await until('a process is ready', () => this.output.includes('ready\n'), 30_000)
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.closed
  }

  async stop(): Promise<void> {
    this.child.stdin!.end()
    await this.closed
    expect(this.output).toContain('stopped')
  }
}

const number = ({ body }: Received): number => JSON.parse(body).data.data.n

/** Asserts that each of these events was accepted, under one id whatever was repeated. */
function expectDelivered(appended: number[], accepted: Set<number>): void {
  expect(appended.filter(n => !accepted.has(n))).toEqual([])
  const ids = new Map<number, Set<string>>()
  for (const request of receiver.requests) {
    const n = number(request)
    ids.set(n, (ids.get(n) ?? new Set()).add(request.id))
    verifier.verify(request.body, request.headers as Record<string, string>)
  }
  for (const [n, all] of ids) expect([n, all.size]).toEqual([n, 1])
  expect(new Set([...ids.values()].flatMap(all => [...all])).size).toBe(ids.size)
}

const pendingIn = async (store: StoreAdapter): Promise<number> => store.index.count('nq:webhook:hook', { filter: { state: 'pending' } })

it('what was not acknowledged before kill -9 is delivered again under its id, and nothing is lost or scheduled twice', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-webhooks-'))
  try {
    const appended: number[] = []
    const accepted = new Set<number>()
    const interrupted = new Set<number>()
    const seen = new Map<number, number>()
    let kills = 0
    for (let round = 0; round <= ROUNDS; round++) {
      const isLast = round === ROUNDS
      const instance = new Instance(dataDir, round * EVENTS, EVENTS)
      let victim = isLast ? Infinity : randomInt(1, EVENTS)
      receiver.respond = (request) => {
        const n = number(request)
        seen.set(n, (seen.get(n) ?? 0) + 1)
        victim -= 1
        if (victim === 0) {
          // The receiver has it, and its sender never learns.
          interrupted.add(n)
          accepted.add(n)
          kills += 1
          instance.child.kill('SIGKILL')
          return
        }
        // A third fails at first, so that retries wait while the process is killed.
        if (n % 3 === 0 && seen.get(n) === 1) return void request.answer.writeHead(500).end()
        accepted.add(n)
        request.answer.end()
      }
      if (isLast) {
        await until('all are accepted', () => instance.appended.length === EVENTS
          && [...appended, ...instance.appended].every(n => accepted.has(n)) && [...interrupted].every(n => seen.get(n)! > 1), 60_000)
        await instance.stop()
      }
      else {
        await instance.closed
      }
      appended.push(...instance.appended)
    }
    expect(kills).toBe(ROUNDS)
    expectDelivered(appended, accepted)
    const [store, queue] = [new FileStoreAdapter({ dataDir: path.join(dataDir, 'store'), bus: null }), new FileQueueAdapter({ dataDir: path.join(dataDir, 'queue') })]
    await Promise.all([store.init(), queue.init()])
    expect(await pendingIn(store)).toBe(0)
    expect(await queue.getJobs('nvent-webhook-hook')).toEqual([])
    // Each attempt is one request, and what was under way at a kill, at most 10, is one more.
    const entries = await store.index.read('nq:webhook:hook', { limit: 1_000 })
    const attempts = entries.reduce((sum, { metadata }) => sum + metadata!['attempts'], 0)
    expect(receiver.requests.length - attempts).toBeLessThanOrEqual(ROUNDS * 10)
    for (const { metadata } of entries) expect(metadata!['attempts']).toBeLessThanOrEqual(2)
    await Promise.all([store.close(), queue.close()])
  }
  finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 120_000)

it('of two instances on Redis one delivers, and the other takes over what it had pending when it is killed', async () => {
  const redis = await RedisServer.start()
  const store = new RedisStoreAdapter({ connection: redis.connection, bus: null })
  await store.init()
  try {
    const accepted = new Set<number>()
    let isDown = true
    receiver.respond = (request) => {
      if (isDown) return void request.answer.writeHead(503).end()
      accepted.add(number(request))
      request.answer.end()
    }
    const first = new Instance(String(redis.port), 0, EVENTS)
    await first.ready()
    const second = new Instance(String(redis.port), EVENTS, EVENTS)
    await second.ready()
    const all = Array.from({ length: 2 * EVENTS }, (_, n) => n)
    await until('all are appended and have been tried', () => all.every(n => receiver.requests.some(request => number(request) === n)), 60_000)
    await first.kill()
    const before = receiver.requests.length
    await until('the other instance tries', () => receiver.requests.length > before, 60_000)
    isDown = false
    await until('all are accepted', () => all.every(n => accepted.has(n)), 60_000)
    await until('none is pending', async () => await pendingIn(store) === 0)
    expectDelivered(all, accepted)
    // While it was up, one instance delivered what both had appended.
    const count = receiver.requests.length
    await second.stop()
    expect(receiver.requests).toHaveLength(count)
  }
  finally {
    await store.close()
    await redis.stop()
  }
}, 180_000)

it('what a stopped process had pending is delivered when it is back, also where the jobs were in memory', async () => {
  const redis = await RedisServer.start()
  try {
    receiver.respond = ({ answer }) => void answer.writeHead(503, { 'retry-after': '1' }).end()
    const first = new Instance(String(redis.port), 0, 3)
    await until('all have been tried', () => receiver.requests.length === 3, 30_000)
    await first.stop()
    receiver.respond = ({ answer }) => void answer.end()
    receiver.requests.length = 0
    const again = new Instance(String(redis.port), 0, 0)
    await until('all are delivered', () => receiver.requests.length === 3, 60_000)
    expect(receiver.requests.map(number).sort()).toEqual([0, 1, 2])
    await again.stop()
  }
  finally {
    await redis.stop()
  }
}, 120_000)
