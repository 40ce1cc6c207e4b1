import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
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

  static async open(store: StoreAdapter, runId: string, lastId?: string, { query = '', subject }: { query?: string, subject?: string } = {}): Promise<Client> {
    const controller = new AbortController()
    const request = new Request(`http://localhost/runs/${runId}/events${query}`, {
      signal: controller.signal, headers: lastId === undefined ? {} : { 'last-event-id': lastId },
    })
    return new Client(await streamRun(runId, request, { store, ...subject === undefined ? {} : { subject } }), controller)
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

  test('follows a run whose id would be a glob', async () => {
    const { store, runId: id } = open()
    const [runId, subject] = [`${id}[1]`, `nq:flow:${id}[1]`]
    await append(store, subject, 0)
    const client = await Client.open(store, runId)
    await until('what is stored', () => client.events.length === 1)
    await append(store, subject, 1)
    await store.append(subject, { type: 'flow.completed', runId })
    await until('what comes', () => client.events.length === 3)
    await client.ended
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
  await expect(Client.open(store, 5 as never)).rejects.toMatchObject({ code: 'NVENT_INVALID' })
  await store.close()
})

test('the position may be in the URL, and the log under another subject; an empty position is the beginning', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  const [first] = await Promise.all(['log', 'note', 'flow.completed'].map(type => store.append('elsewhere', { type })))
  const typesOf = async (query: string): Promise<string[]> => {
    const client = await Client.open(store, 'r', undefined, { query, subject: 'elsewhere' })
    await client.ended
    return client.events.map(({ type }) => type)
  }
  expect(await typesOf(`?lastEventId=${first!.id}`)).toEqual(['note', 'flow.completed'])
  expect(await typesOf('?lastEventId=')).toEqual(['log', 'note', 'flow.completed'])
  await store.close()
})

test('clients of a run share one subscription, which ends with the last of them', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  const [one, two] = [await Client.open(store, 'r'), await Client.open(store, 'r')]
  await store.append('nq:flow:r', { type: 'log' })
  await until('both have the event', () => one.events.length === 1 && two.events.length === 1)
  expect(store.stats()['subscriptions']).toBe(1)
  await one.close()
  expect(store.stats()['subscriptions']).toBe(1)
  await store.append('nq:flow:r', { type: 'log' })
  await until('the other one goes on', () => two.events.length === 2)
  await two.close()
  await until('the subscription has ended', () => store.stats()['subscriptions'] === 0)
  await store.append('nq:flow:r', { type: 'flow.completed' })
  const again = await Client.open(store, 'r')
  await again.ended
  expect(again.events).toHaveLength(3)
  await until('its subscription has ended', () => store.stats()['subscriptions'] === 0)
  await store.close()
})

test('proxies neither keep nor collect what a client is sent, a first line comes at once, and a client that has gone then leaves nothing', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  const stop = new AbortController()
  const response = await streamRun('r', new Request('http://localhost/', { signal: stop.signal }), { store })
  expect(Object.fromEntries(response.headers as any)).toEqual({
    'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no',
  })
  const reader = response.body!.getReader()
  expect(new TextDecoder().decode((await reader.read()).value)).toBe('retry: 1000\n\n')
  // While it subscribes.
  stop.abort()
  expect(await reader.read()).toMatchObject({ done: true })
  await until('its subscription has ended', () => store.stats()['subscriptions'] === 0)
  await store.close()
})

test('the end of a connection is noticed when its request is no longer referenced', async () => {
  setFlagsFromString('--expose-gc')
  const store = new MemoryStoreAdapter({ bus: null })
  const client = await Client.open(store, 'r')
  await store.append('nq:flow:r', { type: 'log' })
  await until('the event', () => client.events.length === 1)
  // What was dereferenced in a turn is kept until its end.
  for (let n = 0; n < 3; n++) {
    await turn()
    runInNewContext('gc')()
  }
  await client.close()
  await until('its subscription has ended', () => store.stats()['subscriptions'] === 0)
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
