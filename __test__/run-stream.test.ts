import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventRecord, StoreAdapter } from 'nvent-native'
import { FileStoreAdapter, MemoryStoreAdapter, RedisStoreAdapter, streamRun } from 'nvent-native'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RedisServer } from './support/redis'
import { until } from './support/until'

let folder: string
let server: RedisServer
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nvent-run-stream-'))
  server = await RedisServer.start()
})
afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})

let opened = 0
const backends: Record<string, () => StoreAdapter> = {
  memory: () => new MemoryStoreAdapter({ bus: null }),
  file: () => new FileStoreAdapter({ bus: null, dataDir: join(folder, String(opened++)) }),
  redis: () => new RedisStoreAdapter({ bus: null, connection: { port: server.port } }),
}

/** Reads server-sent events as a browser does. */
class Client {
  readonly events: EventRecord[] = []
  lastId: string | undefined
  readonly ended: Promise<void>
  private readonly controller = new AbortController()

  constructor(readonly response: Response, stop: AbortController) {
    this.controller = stop
    this.ended = this.read()
  }

  static async open(store: StoreAdapter, runId: string, lastId?: string): Promise<Client> {
    const controller = new AbortController()
    const request = new Request(`http://localhost/runs/${runId}/events`, {
      signal: controller.signal, headers: lastId === undefined ? {} : { 'last-event-id': lastId },
    })
    return new Client(await streamRun(runId, request, { store }), controller)
  }

  async close(): Promise<void> {
    this.controller.abort()
    await this.ended
  }

  private async read(): Promise<void> {
    if (!this.response.body) return
    let text = ''
    for await (const chunk of this.response.body.pipeThrough(new TextDecoderStream() as any) as any as AsyncIterable<string>) {
      text += chunk
      for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
        const fields = Object.fromEntries(text.slice(0, end).split('\n').map(line => line.split(/: (.*)/s, 2)))
        if (fields['data'] === undefined) continue
        this.lastId = fields['id']
        this.events.push(JSON.parse(fields['data']))
      }
    }
  }
}

let runs = 0
describe.each(Object.keys(backends))('streamRun on %s', (name) => {
  const open = (): { store: StoreAdapter, runId: string, subject: string } => {
    const runId = `r${runs++}`
    return { store: backends[name]!(), runId, subject: `nq:flow:${runId}` }
  }
  const append = (store: StoreAdapter, subject: string, n: number): Promise<EventRecord> => store.append(subject, { type: 'log', data: { n } })
  const numbers = (client: Client): number[] => client.events.flatMap(({ type, data }) => type === 'log' ? [data.n] : [])

  test('gives what is stored, then what comes, and ends with the run', async () => {
    const { store, runId, subject } = open()
    for (let n = 0; n < 250; n++) await append(store, subject, n)
    const client = await Client.open(store, runId)
    expect(client.response.headers.get('content-type')).toContain('text/event-stream')
    await until('what is stored', () => client.events.length === 250)
    for (let n = 250; n < 400; n++) await append(store, subject, n)
    await until('what comes', () => client.events.length === 400)
    await store.append(subject, { type: 'flow.completed', runId })
    await client.ended
    expect(numbers(client)).toEqual(Array.from({ length: 400 }, (_, n) => n))
    expect(client.events.at(-1)!.type).toBe('flow.completed')
    // A browser that comes again is sent away for good.
    expect((await Client.open(store, runId, client.lastId)).response.status).toBe(204)
    await store.close()
  })

  test('goes on after Last-Event-ID with no hole and no duplicate, while events are appended', async () => {
    const { store, runId, subject } = open()
    const total = 600
    const appending = (async () => {
      for (let n = 0; n < total; n++) await append(store, subject, n)
    })()
    const seen: number[] = []
    let lastId: string | undefined
    while (seen.length < total) {
      const client = await Client.open(store, runId, lastId)
      await until('some events', () => client.events.length >= Math.min(40, total - seen.length))
      await client.close()
      seen.push(...numbers(client))
      lastId = client.lastId
    }
    await appending
    expect(seen).toEqual(Array.from({ length: total }, (_, n) => n))
    await store.close()
  })

  test('200 clients of one run each get everything', async () => {
    const { store, runId, subject } = open()
    const clients = await Promise.all(Array.from({ length: 200 }, () => Client.open(store, runId)))
    for (let n = 0; n < 20; n++) await append(store, subject, n)
    await store.append(subject, { type: 'flow.failed', runId })
    await Promise.all(clients.map(client => client.ended))
    for (const client of clients) expect(client.events).toHaveLength(21)
    await store.close()
  })

  test('a run that failed and is retried goes on', async () => {
    const { store, runId, subject } = open()
    await store.append(subject, { type: 'flow.failed', runId })
    const retried = await store.append(subject, { type: 'flow.retry', runId })
    const client = await Client.open(store, runId, retried.id)
    expect(client.response.status).toBe(200)
    await store.append(subject, { type: 'flow.completed', runId })
    await client.ended
    expect(client.events.map(event => event.type)).toEqual(['flow.completed'])
    await store.close()
  })

  test('a store that is closed ends its clients', async () => {
    const { store, runId, subject } = open()
    await append(store, subject, 0)
    const client = await Client.open(store, runId)
    await until('the first event', () => client.events.length === 1)
    const closing = append(store, subject, 1)
    await store.close()
    await closing.catch(() => {})
    await client.close()
  })
})

test('a Last-Event-ID that is none is refused', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  expect((await Client.open(store, 'r', 'nonsense')).response.status).toBe(400)
  await store.close()
})

test('two instances on one Redis give one sequence to a client that goes from one to the other', async () => {
  const instances = [backends['redis']!(), backends['redis']!()]
  const seen: number[] = []
  let lastId: string | undefined
  const appending = (async () => {
    for (let n = 0; n < 300; n++) await instances[n % 2]!.append('nq:flow:both', { type: 'log', data: { n } })
  })()
  for (let turn = 0; seen.length < 300; turn++) {
    const client = await Client.open(instances[turn % 2]!, 'both', lastId)
    await until('some events', () => client.events.length >= Math.min(25, 300 - seen.length))
    await client.close()
    seen.push(...client.events.map(event => event.data.n))
    lastId = client.lastId
  }
  await appending
  expect(seen).toEqual(Array.from({ length: 300 }, (_, n) => n))
  await Promise.all(instances.map(store => store.close()))
})
