import { createHmac, randomBytes } from 'node:crypto'
import { createEventBus, createWiringRegistry, defineFlow, handleWebhook, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import type { TriggerDefinition } from 'nvent-native'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { until } from './support/until'

const KEY = randomBytes(32)
const OLD = randomBytes(24)
const secret = (key: Buffer): string => `whsec_${key.toString('base64')}`

interface Sent { id?: string, at?: number | string, body?: string | Uint8Array<ArrayBuffer>, key?: Buffer, signature?: string, type?: string }
let sent = 0
const sign = (key: Buffer, id: string, at: number | string, body: string | Uint8Array): string =>
  `v1,${createHmac('sha256', key).update(`${id}.${at}.`).update(body).digest('base64')}`
function request({ id = `msg_${sent++}`, at = Math.floor(Date.now() / 1000), body = '{}', key = KEY, signature, type = 'application/json' }: Sent = {}): Request {
  const headers = { 'content-type': type, 'webhook-id': id, 'webhook-timestamp': String(at), 'webhook-signature': signature ?? sign(key, id, at, body) }
  return new Request('http://localhost/hook', { method: 'POST', headers, body })
}

const seen: unknown[] = []
const bundles: unknown[] = []
const flows = [
  defineFlow('take', { only: { run: input => void seen.push(input) } }),
  defineFlow('bundle', { only: { run: input => void bundles.push(input) } }),
]
const triggers: TriggerDefinition[] = [
  { id: 'shop', on: { webhook: { secret: [secret(KEY), secret(OLD)] } }, start: 'take' },
  { id: 'bundle', on: { webhook: { secret: secret(KEY) } }, start: 'bundle', debounce: { wait: 200 }, input: ({ events }) => events!.map(({ data }) => data) },
  { id: 'hand', on: { manual: true }, start: 'take' },
]
const bus = createEventBus()
const store = new MemoryStoreAdapter({ bus })
const queue = new MemoryQueueAdapter()
const registry = createWiringRegistry({ bus, store, queue, stream: new MemoryStreamAdapter(), flow: { flows }, triggers })
beforeAll(() => registry.start())
beforeEach(() => void seen.splice(0))
afterAll(async () => {
  await registry.stop()
  await queue.close()
  await store.close()
})

const fired = async (id: string): Promise<number> => (await store.read(`nq:trigger:${id}`, { types: ['trigger.fired'] })).length

it('a signed request starts the run, with the JSON of its body as data', async () => {
  const response = await handleWebhook('shop', request({ body: '{"order":17}' }))
  expect([response.status, await response.text()]).toEqual([202, ''])
  await until('it has run', () => seen.length === 1)
  expect(seen).toEqual([{ order: 17 }])
})

it('what has no JSON is text', async () => {
  for (const sent of [{ body: 'a=1&b=2', type: 'application/x-www-form-urlencoded' }, { body: '{"half', type: 'application/json' }, { body: '12', type: 'text/plain' }]) {
    expect((await handleWebhook('shop', request(sent))).status).toBe(202)
  }
  await until('all have run', () => seen.length === 3)
  expect(new Set(seen)).toEqual(new Set(['a=1&b=2', '{"half', '12']))
})

it('each secret counts while one is rotated, and one good signature of several', async () => {
  const at = Math.floor(Date.now() / 1000)
  const both = `${sign(randomBytes(32), 'both', at, '{}')} v2,xyz ${sign(OLD, 'both', at, '{}')}`
  for (const one of [request({ key: OLD }), request({ id: 'both', at, signature: both })]) {
    expect((await handleWebhook('shop', one)).status).toBe(202)
  }
})

it('a wrong signature, another time, body or id, and old or future times are refused, without detail', async () => {
  const before = await fired('shop')
  const now = Math.floor(Date.now() / 1000)
  const good = sign(KEY, 'x', now, '{}')
  const wrong: Sent[] = [
    { key: randomBytes(32) }, { signature: '' }, { signature: 'v1,' }, { signature: 'v1,AAAA' },
    { id: 'x', at: now, signature: good.replace('v1,', 'v2,') }, { id: 'x', at: now, signature: good.slice(3) },
    { id: 'x', at: now, body: '{ }', signature: good }, { id: 'y', at: now, signature: good }, { id: 'x', at: now - 1, signature: good },
    { at: now - 301 }, { at: now + 302 }, { at: 'soon' }, { at: '' }, { id: '' }, { id: 'x'.repeat(257) }, { at: `${now}.0` },
  ]
  for (const sent of wrong) {
    const response = await handleWebhook('shop', request(sent))
    expect([response.status, await response.text()], JSON.stringify(sent)).toEqual([401, ''])
  }
  expect(await fired('shop')).toBe(before)
})

it('a repeated id is refused, also of two requests at once, and fires nothing again', async () => {
  const before = await fired('shop')
  const statuses = await Promise.all(Array.from({ length: 5 }, () => handleWebhook('shop', request({ id: 'once' })).then(({ status }) => status)))
  expect(statuses.sort()).toEqual([202, 409, 409, 409, 409])
  expect((await handleWebhook('shop', request({ id: 'once', body: '{"other":1}' }))).status).toBe(409)
  await until('it has fired', async () => await fired('shop') > before)
  expect(await fired('shop')).toBe(before + 1)
})

it('more than a megabyte is refused while it is read', async () => {
  const large = 'x'.repeat(1024 * 1024)
  expect((await handleWebhook('shop', request({ body: `"${large}"` }))).status).toBe(413)
  expect((await handleWebhook('shop', request({ body: large }))).status).toBe(202)
  let pulled = 0
  const endless = new ReadableStream({ pull: controller => controller.enqueue(new Uint8Array(65_536).fill(++pulled)) })
  const response = await handleWebhook('shop', new Request('http://localhost/', { method: 'POST', body: endless, duplex: 'half' } as RequestInit))
  expect(response.status).toBe(413)
  expect(pulled).toBeLessThan(30)
})

it('only a webhook trigger that is there and enabled takes requests, and only POST', async () => {
  expect((await handleWebhook('nothing', request())).status).toBe(404)
  expect((await handleWebhook('hand', request())).status).toBe(404)
  expect((await handleWebhook('shop', new Request('http://localhost/'))).status).toBe(405)
  await registry.triggers!.disable('shop')
  expect((await handleWebhook('shop', request({ id: 'later' }))).status).toBe(404)
  await registry.triggers!.enable('shop')
  expect((await handleWebhook('shop', request({ id: 'later' }))).status).toBe(202)
})

it('debounced requests start one run, which has all of them', async () => {
  // An id is one of its trigger only: the other one has had it.
  for (const n of [1, 2, 3]) expect((await handleWebhook('bundle', request({ id: n === 1 ? 'once' : `b${n}`, body: String(n) }))).status).toBe(202)
  expect((await handleWebhook('bundle', request({ id: 'once' }))).status).toBe(409)
  await until('it has run', () => bundles.length === 1)
  expect(bundles).toEqual([[1, 2, 3]])
})

it('a request without a body fires with an empty text', async () => {
  const { headers } = request({ id: 'bodiless', body: '' })
  expect((await handleWebhook('shop', new Request('http://localhost/hook', { method: 'POST', headers }))).status).toBe(202)
  await until('it has run', () => seen.length === 1)
  expect(seen).toEqual([''])
})

it('a body that no store takes is refused', async () => {
  const body = `${'['.repeat(2_000)}${']'.repeat(2_000)}`
  expect((await handleWebhook('shop', request({ body }))).status).toBe(400)
})
