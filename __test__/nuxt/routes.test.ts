/** The routes that the module mounts, beside the inspector's: the events of runs, metrics, signed requests. */
import { createHmac } from 'node:crypto'
import { createAdapters, createWiringRegistry, defineFlow, shutdownAdapters, type Adapters, type WiringRegistry } from 'nvent-native'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { until } from '../support/until.js'
import { bundled, serve } from './bundle.js'

const KEY = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const imports = 'export { useStoreAdapter } from \'nvent-native/native\''
const events = (authorize: string, { subject, dev }: { subject?: string, dev?: boolean } = {}) => bundled('realtime/run-events.js', {
  '#imports': imports, '#nvent-native/realtime': `export const authorize = ${authorize}; export const runSubject = ${JSON.stringify(subject)}`,
}, dev)
const numbers = (authorize: string, dev?: boolean) => bundled('metrics.js', { '#nvent-native/metrics': `export const authorize = ${authorize}` }, dev)

let adapters: Adapters, wiring: WiringRegistry
const ends: Array<() => unknown> = []
const served = async (routes: Parameters<typeof serve>[0]) => {
  const { url, stop } = await serve(routes)
  ends.push(stop)
  return url
}

beforeAll(async () => {
  adapters = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' }, stream: { adapter: 'memory' } })
  const flow = defineFlow('count', { only: { run: () => 1 } })
  wiring = createWiringRegistry({ flow: { flows: [flow] }, triggers: [{ id: 'by mail, 5%', on: { webhook: { secret: `whsec_${KEY}` } }, start: 'count' }] })
  await wiring.start()
})
afterAll(async () => {
  for (const end of ends) await end()
  await wiring.stop()
  await shutdownAdapters(adapters)
})

/** Stores a run that has ended, so that its events end too. */
const ended = async (subject: string, runId: string) => {
  const first = await adapters.store.append(subject, { type: 'flow.start', runId, flowName: 'f' })
  const last = await adapters.store.append(subject, { type: 'flow.completed', runId, flowName: 'f' })
  return [first.id, last.id]
}
const idsOf = async (response: Response) => [...(await response.text()).matchAll(/^id: ?(.*)$/gm)].map(([, id]) => id)

test('a run is followed where the file that decides says true of it, by its decoded id', async () => {
  const { default: handler } = await events('async (event, { runId }) => runId === \'a/$& b\' && (event.headers.get(\'x-user\') ?? true)')
  const url = await served({ '/runs/:runId/events': handler })
  const ids = await ended('nq:flow:a/$& b', 'a/$& b')
  const path = `${url}/runs/${encodeURIComponent('a/$& b')}/events`
  const response = await fetch(path)
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8'])
  expect(await idsOf(response)).toEqual(ids)
  expect(await idsOf(await fetch(path, { headers: { 'last-event-id': ids[0]! } }))).toEqual([ids[1]])
  expect((await fetch(path, { headers: { 'last-event-id': 'none' } })).status).toBe(400)
  expect((await fetch(path, { headers: { 'x-user': 'any text' } })).status).toBe(403)
  expect((await fetch(`${url}/runs/other/events`)).status).toBe(403)
  expect((await fetch(`${url}/runs/%zz/events`)).status).toBe(400)
})

test('beside nvent a run is read from the subject of nvent', async () => {
  const { default: handler } = await events('() => true', { subject: 'shop:flow:run:{runId}' })
  const url = await served({ '/runs/:runId/events': handler })
  const ids = await ended('shop:flow:run:$&', '$&')
  expect(await idsOf(await fetch(`${url}/runs/${encodeURIComponent('$&')}/events`))).toEqual(ids)
})

test('without a file that decides, only the development server shows runs and metrics', async () => {
  await ended('nq:flow:dev', 'dev')
  for (const [dev, status] of [[true, 200], [false, 403]] as const) {
    const [run, metrics] = await Promise.all([events('undefined', { dev }), numbers('undefined', dev)])
    const url = await served({ '/runs/:runId/events': run.default, '/metrics': metrics.default })
    expect([(await fetch(`${url}/runs/dev/events`)).status, (await fetch(`${url}/metrics`)).status]).toEqual([status, status])
  }
})

test('a server that ends ends what is followed, and refuses more', async () => {
  const before = process.listeners('SIGTERM')
  const { default: handler } = await events('() => true')
  const url = await served({ '/runs/:runId/events': handler })
  const open = await fetch(`${url}/runs/never/events`)
  const text = open.text()
  // What the process would do: a signal would end the test, too.
  for (const listener of process.listeners('SIGTERM')) if (!before.includes(listener)) listener('SIGTERM')
  await text
  const refused = await fetch(`${url}/runs/never/events`)
  expect([refused.status, refused.headers.get('connection')]).toEqual([503, 'close'])
})

test('metrics are text for Prometheus, of a request that the file is asked about', async () => {
  const { default: handler } = await numbers('async (event, about) => JSON.stringify(about) === \'{"runId":"","resource":"metrics"}\' && (event.headers.get(\'x-user\') ?? true)')
  const url = `${await served({ '/metrics': handler })}/metrics`
  const response = await fetch(url)
  expect([response.status, response.headers.get('content-type'), response.headers.get('cache-control')]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8', 'no-store'])
  expect(await response.text()).toContain('nvent_store_appends_total')
  expect((await fetch(url, { headers: { 'x-user': 'any text' } })).status).toBe(403)
})

test('a signed request fires the trigger of its decoded name, with its body', async () => {
  const { default: handler } = await bundled('webhook.js', {})
  const url = await served({ '/webhooks/:trigger': handler })
  const [body, at] = ['{"n":1}', String(Math.floor(Date.now() / 1000))]
  const signature = `v1,${createHmac('sha256', Buffer.from(KEY, 'base64')).update(`m1.${at}.${body}`).digest('base64')}`
  const headers = { 'content-type': 'application/json', 'webhook-id': 'm1', 'webhook-timestamp': at, 'webhook-signature': signature }
  const send = async (trigger: string) => (await fetch(`${url}/webhooks/${trigger}`, { method: 'POST', body, headers })).status
  expect([await send('other'), await send('by%zz'), await send('by%20mail%2C%205%25')]).toEqual([404, 400, 202])
  const run = await until('the run', async () => {
    const [run] = await adapters.store.index.read('nq:flows:count')
    return run
  })
  expect((await adapters.store.stream.read(`nq:flow:${run.id}`))[0]).toMatchObject({ type: 'flow.start', data: { input: { n: 1 } }, trigger: { id: 'by mail, 5%' } })
})
