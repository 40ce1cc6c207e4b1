/** What the inspector's page asks for, each answer as a whole. */
import { createAdapters, createWiringRegistry, defineFlow, shutdownAdapters, startFlow, type Adapters, type Consumer, type WiringRegistry } from 'nvent-native'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { until } from '../support/until.js'
import { bundled, serve } from './bundle.js'

const imports = `
  export { useStoreAdapter, useQueueAdapter } from 'nvent-native/native'
  export const useRuntimeConfig = () => ({ app: { baseURL: '/<base>/' } })`
const inspector = (authorize: string, prefix?: string) => `
  export const authorize = ${authorize}
  export const path = '/_nvent/inspector', script = 'the script', style = 'the style'
  export const prefix = ${JSON.stringify(prefix)}`
const handler = (dev: boolean, authorize: string, prefix?: string) =>
  bundled('inspector/handler.js', { '#imports': imports, '#nvent-native/inspector': inspector(authorize, prefix) }, dev)
const served = async (...args: Parameters<typeof handler>) => {
  const { default: inspects } = await handler(...args)
  return serve({ '/_nvent/inspector': inspects, '/_nvent/inspector/**': inspects })
}

const LARGE = 'x'.repeat(20_000)
const order = defineFlow('order', {
  check: { emits: ['checked'], run: (_, { emit }) => emit('checked') },
  pay: { subscribes: ['checked'], attempts: 1, queue: 'payments', run: ({ checked }) => { void checked; if (isDeclined) throw new Error('declined') } },
})
const other = defineFlow('other', { only: { run: ({ hangs }: any, { signal }) => hangs ? new Promise(resolve => signal.addEventListener('abort', resolve)) : 1 } })
let isDeclined = false

let adapters: Adapters, wiring: WiringRegistry, mailer: Consumer, url: string
const ends: Array<() => unknown> = []

beforeAll(async () => {
  adapters = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' }, stream: { adapter: 'memory' } })
  wiring = createWiringRegistry({ flow: { flows: [order, other] } })
  await wiring.start()
  const inspected = await served(false, `async event => event.headers.get('x-user') ?? true`)
  url = `${inspected.url}/_nvent/inspector`
  ends.push(inspected.stop)

  for (const runId of ['a1', 'a2']) await end(order, runId, {})
  isDeclined = true
  await end(order, 'a3', {})
  await end(other, 'b1', {})
  await adapters.store.append('mails', { type: 'mail', data: { to: 'one' } })
  await adapters.store.append('mails', { type: 'mail', data: { to: LARGE } })
  mailer = await adapters.store.consume('mailer', () => { throw new Error('away') }, { subjects: 'mails', from: 'beginning', attempts: 1 })
  await until('both are parked', () => mailer.stats().parked === 2)
})
afterAll(async () => {
  for (const end of ends) await end()
  await wiring.stop()
  await shutdownAdapters(adapters)
})

const end = async (flow: typeof order, runId: string, input: object) => {
  await (await startFlow(flow, input, { runId })).result()
  await indexed(flow.id, runId, status => status !== 'running')
}
const indexed = (flow: string, runId: string, is: (status: string) => boolean) =>
  until(`the status of ${runId}`, async () => is((await adapters.store.index.get(`nq:flows:${flow}`, runId))?.metadata.status ?? 'running'))

const request = (path: string, init?: RequestInit) => fetch(`${url}/${path}`, init)
/** Returns the answer, or the status and the reason where it is not 200. */
const ask = async (path: string, init?: RequestInit): Promise<any> => {
  const response = await request(`api/${path}`, init)
  const answer = await response.json()
  return response.ok ? answer : [response.status, answer.statusMessage, answer.message]
}
const act = (action: string, body: unknown, headers: Record<string, string> = { 'sec-fetch-site': 'same-origin' }) =>
  ask(action, { method: 'POST', headers: { 'content-type': 'application/json; charset=utf-8', ...headers }, body: JSON.stringify(body) })
const query = (path: string, parameters: Record<string, unknown>) => ask(`${path}?${new URLSearchParams(Object.entries(parameters).map(([key, value]) => [key, String(value)]))}`)
const ids = (rows: Array<{ id: string }>) => rows.map(({ id }) => id)

describe('the page and who may see it', () => {
  test('it comes with its script and style, and with headers that let nothing else in', async () => {
    const all = await Promise.all(['', '/', '/app.js?v=1', '/app.css'].map(path => fetch(url + path)))
    const [page, , script, style] = all
    expect(all.map(({ status, headers }) => [status, headers.get('content-type')])).toEqual(
      [[200, 'text/html; charset=utf-8'], [200, 'text/html; charset=utf-8'], [200, 'text/javascript; charset=utf-8'], [200, 'text/css; charset=utf-8']])
    expect([await script!.text(), await style!.text()]).toEqual(['the script', 'the style'])
    expect(await page!.text()).toMatch(/^<!doctype html>\n<html lang="en">[^]*<script type="module" src="\/&#60;base&#62;\/_nvent\/inspector\/app\.js">[^]*data-path="\/&#60;base&#62;\/_nvent\/inspector"/)
    for (const { headers } of [page!, await request('api/overview')]) {
      expect(['x-content-type-options', 'referrer-policy', 'cache-control'].map(name => headers.get(name))).toEqual(['nosniff', 'no-referrer', 'no-store'])
      expect(headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self'; .*frame-ancestors 'self'$/)
    }
    expect([(await request('', { method: 'HEAD' })).status, (await request('', { method: 'PUT' })).status]).toEqual([200, 405])
  })

  test('the file that decides lets in with true alone; without it, only the development server answers', async () => {
    expect((await request('', { headers: { 'x-user': 'any text' } })).status).toBe(403)
    for (const [dev, authorize, prefix, status] of [[true, 'undefined', undefined, 200], [false, 'undefined', undefined, 403], [true, '() => false', undefined, 403]] as const) {
      const { url, stop } = await served(dev, authorize, prefix)
      expect((await fetch(`${url}/_nvent/inspector`)).status).toBe(status)
      await stop()
    }
  })

  test('only the page itself may act, and with an object', async () => {
    const cancel = { flow: 'order', id: 'none' }
    const { host } = new URL(url)
    expect(await act('run/cancel', cancel)).toEqual({ done: false })
    expect(await act('run/cancel', cancel, { origin: `http://${host}` })).toEqual({ done: false })
    expect(await act('run/cancel', cancel, { 'origin': 'https://app.example', 'x-forwarded-host': 'app.example' })).toEqual({ done: false })
    expect((await act('run/cancel', cancel, {}))[0]).toBe(403)
    expect((await act('run/cancel', cancel, { origin: 'null' }))[0]).toBe(403)
    expect((await act('run/cancel', cancel, { origin: 'https://app.example' }))[0]).toBe(403)
    expect((await act('run/cancel', cancel, { 'sec-fetch-site': 'same-site', 'origin': `http://${host}` }))[0]).toBe(403)
    expect((await act('run/cancel', cancel, { 'sec-fetch-site': 'same-origin', 'content-type': 'text/plain' }))[0]).toBe(403)
    expect((await ask('run/cancel', { method: 'POST', headers: { 'sec-fetch-site': 'same-origin' } }))[0]).toBe(403)
    expect((await act('run/cancel', null))[0]).toBe(400)
    expect((await act('run/cancel', 1))[0]).toBe(400)
    expect([(await act('toString', cancel))[0], (await ask('toString'))[0], (await ask('run/cancel'))[0], (await act('overview', {}))[0]]).toEqual([404, 404, 404, 404])
    expect((await request('run/cancel', { method: 'POST', headers: { 'content-type': 'application/json', 'sec-fetch-site': 'same-origin' }, body: '{}' })).status).toBe(404)
  })
})

describe('runs', () => {
  test('an overview, and the number of runs of each flow by status', async () => {
    expect(await ask('overview')).toEqual({
      store: { ok: true, backend: 'memory' }, queue: { ok: true, backend: 'memory' }, canAct: true,
      flows: [
        { id: 'order', steps: [{ name: 'check', queue: 'order.check', subscribes: [], emits: ['checked'] }, { name: 'pay', queue: 'payments', subscribes: ['checked'], emits: [] }] },
        { id: 'other', steps: [{ name: 'only', queue: 'other.only', subscribes: [], emits: [] }] },
      ],
    })
    const counts = () => ask('counts')
    const all = await until('counts', async () => {
      const all = await counts()
      return all.every(({ statuses }: any) => !Object.values(statuses).includes(null)) && all
    })
    expect(all).toEqual([
      { flow: 'order', total: 3, statuses: { running: 0, completed: 2, failed: 1, canceled: 0 } },
      { flow: 'other', total: 1, statuses: { running: 0, completed: 1, failed: 0, canceled: 0 } },
    ])
  })

  test('a number of runs is counted once for all who ask within two seconds, and again where that failed', async () => {
    const { url, stop } = await served(false, 'async () => true')
    const { index } = adapters.store
    const { count } = index
    const counts = () => fetch(`${url}/_nvent/inspector/api/counts`)
    let calls = 0
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      index.count = async () => { throw new Error('away') }
      expect((await counts()).ok).toBe(false)
      index.count = (...args) => (calls++, count.apply(index, args))
      const answers = [await (await counts()).json(), await (await counts()).json()]
      expect(answers[0].map(({ flow, total }: any) => [flow, total])).toEqual([['order', 3], ['other', 1]])
      expect(answers[1].map(({ total }: any) => total)).toEqual([3, 1])
      const [flows, statuses] = [2, 4]
      expect(calls).toBe(flows * (1 + statuses))
      vi.setSystemTime(Date.now() + 2_001)
      await counts()
      expect(calls).toBe(2 * flows * (1 + statuses))
    }
    finally {
      vi.useRealTimers()
      index.count = count
      await stop()
    }
  })

  test('pages over all flows or one, newest first, without what the wiring keeps for itself', async () => {
    const first = await query('runs', { limit: 3 })
    expect(ids(first.runs)).toEqual(['b1', 'a3', 'a2'])
    expect(first.runs[1]).toMatchObject({ id: 'a3', flow: 'order', metadata: { status: 'failed', flowName: 'order', error: 'declined' } })
    for (const { metadata } of first.runs) for (const hidden of ['emittedEvents', 'awaitingSteps']) expect(metadata).not.toHaveProperty(hidden)
    const second = await query('runs', { limit: 3, cursor: first.cursor })
    expect([ids(second.runs), second.cursor]).toEqual([['a1'], null])
    const [one] = [await query('runs', { limit: 1 })]
    const two = await query('runs', { limit: 1, cursor: one.cursor })
    const three = await query('runs', { limit: 1, cursor: two.cursor })
    expect(ids([one, two, three].flatMap(({ runs }) => runs))).toEqual(['b1', 'a3', 'a2'])
    expect(ids((await query('runs', { flow: 'order' })).runs)).toEqual(['a3', 'a2', 'a1'])
    expect(ids((await query('runs', { status: 'failed' })).runs)).toEqual(['a3'])
    expect((await query('runs', { flow: 'none' }))).toEqual({ runs: [], cursor: null })
    expect((await query('runs', { limit: 4 })).cursor).toBeNull()
    for (const cursor of ['x', '{"order":-1}', '{"order":0.5}', '{"order":"1"}', '{"order":0,"other":-1}']) expect(await query('runs', { cursor }), cursor).toEqual([400, 'NVENT_INVALID', 'cursor: not usable'])
    for (const limit of ['x', '0', '1.5', '']) expect(await query('runs', { limit }), limit).toEqual([400, 'NVENT_INVALID', 'limit: expected a whole number from 1'])
  })

  test('a page has 100 runs unless more are asked for, and at most 500', async () => {
    const { store } = adapters
    for (let n = 0; n < 501; n++) await store.index.add('nq:flows:other', `many-${n}`, n, { status: 'stuck' })
    const length = async (limit: object) => (await query('runs', { status: 'stuck', ...limit })).runs.length
    expect([await length({}), await length({ limit: 499 }), await length({ limit: 501 })]).toEqual([100, 499, 500])
    for (let n = 0; n < 501; n++) await store.index.delete('nq:flows:other', `many-${n}`)
  })

  test('are found by an id or its beginning, taken literally, newest first', async () => {
    expect(ids(await query('search', { q: 'a' }))).toEqual(['a3', 'a2', 'a1'])
    expect(await query('search', { q: 'a2' })).toEqual((await query('runs', { flow: 'order' })).runs.filter(({ id }: any) => id === 'a2'))
    expect([await query('search', { q: '*' }), await query('search', { q: '[a]' }), await query('search', { q: 'a?' })]).toEqual([[], [], []])
    await end(other, 'x*[y]?\\', {})
    expect(ids(await query('search', { q: 'x*[' }))).toEqual(['x*[y]?\\'])
    // Without a log.
    await adapters.store.index.add('nq:flows:other', 'only-there', 1, { status: 'completed' })
    expect(ids(await query('search', { q: 'only-there' }))).toEqual(['only-there'])
    expect(await query('search', { q: '' })).toEqual([400, 'NVENT_INVALID', 'q: expected a text'])
    for (let n = 10; n < 70; n++) {
      await adapters.store.append(`nq:flow:lots-${n}`, { type: 'x' })
      await adapters.store.index.add('nq:flows:other', `lots-${n}`, n, { startedAt: n })
    }
    expect(await query('search', { q: 'lots-' })).toHaveLength(50)
  })

  test('are found on any page of the subjects that begin so', async () => {
    const { store } = adapters
    await Promise.all(Array.from({ length: 2_500 }, (_, n) => store.append(`nq:flow:many-${n}`, { type: 'x' })))
    const { cursor } = await store.subjects('nq:flow:many-*')
    const [subject] = (await store.subjects('nq:flow:many-*', cursor)).subjects
    const id = subject!.slice('nq:flow:'.length)
    await store.index.add('nq:flows:order', id, 0, { status: 'completed' })
    expect(ids(await query('search', { q: 'many-' }))).toEqual([id])
    await store.index.delete('nq:flows:order', id)
  })

  test('one with its steps, and none that is not there', async () => {
    const { entry, steps } = await query('run', { flow: 'order', id: 'a3' })
    expect([entry.id, entry.flow, entry.metadata.status, steps.map(({ name }: any) => name)]).toEqual(['a3', 'order', 'failed', ['check', 'pay']])
    expect((await query('run', { flow: 'order', id: 'none' })).entry).toBeNull()
    expect(await query('run', { flow: 'none', id: 'a3' })).toEqual([404, 'NVENT_NOT_FOUND', 'there is no flow "none"'])
    expect(await query('run', { flow: 'order' })).toEqual([400, 'NVENT_INVALID', 'id: expected a text'])
    expect(await ask('run?id=a3')).toEqual([400, 'NVENT_INVALID', 'flow: expected a text'])
  })

  test('its log in pages, where a large event comes alone, and its state after any event', async () => {
    const run = { flow: 'order', id: 'a3' }
    const log = await query('events', run)
    expect(log).toEqual(await adapters.store.stream.read('nq:flow:a3'))
    const [first, second] = log
    expect(await query('events', { ...run, after: first.id, limit: 1 })).toEqual([second])
    const large = await adapters.store.append('nq:flow:a3', { type: 'large', data: { name: 'its name', text: LARGE, error: 'e'.repeat(2_000) } })
    const [bare] = await query('events', { ...run, after: log.at(-1).id })
    expect(bare).toEqual({ ...large, data: { name: 'its name', error: 'e'.repeat(1_000) }, dataSize: JSON.stringify(large.data).length })
    expect(await query('event', { ...run, event: large.id })).toEqual(large)
    expect(await query('event', { ...run, event: first.id })).toEqual(first)
    for (const event of ['1-0', 'x']) expect(await query('event', { ...run, event })).toEqual([404, 'NVENT_NOT_FOUND', 'the log has no such event'])

    const states = async (until?: string) => Object.values((await query('state', { ...run, ...until ? { until } : {} })).steps).map(({ status, state }: any) => status ?? state)
    expect(await states(first.id)).not.toEqual(await states())
    expect(await query('state', { flow: 'order', id: 'none' })).toBeDefined()
  })

  test('one is followed as it goes on, and so is the store', async () => {
    const [follow, live] = await Promise.all([request('api/follow?flow=order&id=followed'), request('api/live')])
    expect([follow.headers.get('content-type'), live.headers.get('content-type')]).toEqual(['text/event-stream; charset=utf-8', 'text/event-stream; charset=utf-8'])
    const [log, head] = [reader(follow), reader(live)]
    await head.until(/^retry: 1000\nevent: head\ndata: \n\n$/)
    isDeclined = false
    await end(order, 'followed', {})
    await log.until(/flow\.start[^]*flow\.completed/)
    await head.until(/(event: head[^]*){2}/)
    await Promise.all([log.end(), head.end()])
  })
})

describe('jobs and consumers', () => {
  test('queues, with their counts and whether they are paused', async () => {
    await adapters.queue.pause('other.only')
    adapters.queue.registerWorker('mail', 'send', async () => {})
    const none = { waiting: 0, active: 0, delayed: 0, failed: 0, paused: 0 }
    expect(await ask('queues')).toMatchObject([
      { name: 'mail', counts: none, paused: false },
      { name: 'order.check', counts: none, paused: false },
      { name: 'other.only', counts: none, paused: true },
      { name: 'payments', counts: { failed: 1 }, paused: false },
    ])
    await adapters.queue.resume('other.only')
  })

  test('jobs in pages, by state, a large one without its data', async () => {
    for (const [jobId, data] of [['j1', 1], ['j2', LARGE], ['j3', 3]] as const) await adapters.queue.enqueue('idle', { name: 'n', data, opts: { jobId } })
    await adapters.queue.enqueue('idle', { name: 'n', data: 4, opts: { jobId: 'j4', delay: 60_000 } })
    const all = await query('jobs', { queue: 'idle' })
    expect([ids(all).toSorted(), ids(await query('jobs', { queue: 'idle', state: 'delayed' }))]).toEqual([['j1', 'j2', 'j3', 'j4'], ['j4']])
    expect(all.find(({ id }: any) => id === 'j1')).toMatchObject({ data: 1 })
    expect(all.find(({ id }: any) => id === 'j1')).not.toHaveProperty('isLarge')
    expect(all.find(({ id }: any) => id === 'j2')).toMatchObject({ id: 'j2', state: 'waiting', isLarge: true })
    expect(all.find(({ id }: any) => id === 'j2')).not.toHaveProperty('data')
    expect(ids(await query('jobs', { queue: 'idle', offset: 1, limit: 2 }))).toEqual(ids(all).slice(1, 3))
    for (const offset of ['-1', 'x', '0.5']) expect(await query('jobs', { queue: 'idle', offset }), offset).toEqual([400, 'NVENT_INVALID', 'offset: expected a whole number from 0'])
    expect(await ask('jobs')).toEqual([400, 'NVENT_INVALID', 'queue: expected a text'])
  })

  test('a failed run and a failed job are tried again', async () => {
    isDeclined = true
    expect(await act('job/retry', { queue: 'payments', id: 'none' })).toEqual({ done: false })
    expect(await act('job/retry', { queue: 'payments', id: 'a3__pay' })).toEqual({ done: true })
    await until('its second failure', async () => (await adapters.queue.getJob('payments', 'a3__pay'))?.attemptsMade === 2)
    isDeclined = false
    expect(await act('run/retry', { flow: 'order', id: 'a3' })).toEqual({ done: true })
    await indexed('order', 'a3', status => status === 'completed')
    expect(await act('run/retry', { flow: 'order', id: 'a3' })).toEqual({ done: false })
    expect(await act('run/retry', { flow: 'order' })).toEqual([400, 'NVENT_INVALID', 'id: expected a text'])
    expect(await act('job/retry', { queue: 'payments', id: 1 })).toEqual([400, 'NVENT_INVALID', 'id: expected a text'])
  })

  test('a run is cancelled, with the reason', async () => {
    await startFlow(other, { hangs: true }, { runId: 'hanging' })
    expect(await act('run/cancel', { flow: 'other', id: 'hanging' })).toEqual({ done: true })
    const log = await adapters.store.stream.read('nq:flow:hanging', { types: ['flow.cancel'] })
    expect(log).toMatchObject([{ data: { reason: 'Cancelled in the inspector' } }])
    expect(await act('run/cancel', { id: 'hanging' })).toEqual([400, 'NVENT_INVALID', 'flow: expected a text'])
  })

  test('what consumers have parked, in pages, and its replay', async () => {
    expect(await ask('consumers')).toMatchObject([{ name: 'mailer', parked: 2 }])
    const [one, two] = await query('parked', { consumer: 'mailer' })
    expect([one.event.data, two.event.data, two.event.dataSize]).toEqual([{ to: 'one' }, {}, LARGE.length + 9])
    expect(one).toMatchObject({ reason: 'away' })
    expect(await query('parked', { consumer: 'mailer', after: one.position, limit: 5 })).toEqual([two])
    expect(await query('parked', { consumer: 'mailer', limit: 1 })).toEqual([one])
    expect(await ask('parked')).toEqual([400, 'NVENT_INVALID', 'consumer: expected a text'])
    expect(await act('parked/replay', { consumer: 'mailer', positions: [one.position] })).toEqual({ replayed: 1 })
    await until('it is parked again', async () => mailer.stats().parked === 2)
    expect(await act('parked/replay', { consumer: 'mailer' })).toEqual({ replayed: 2 })
    expect(await act('parked/replay', { consumer: 'mailer', positions: 'all' })).toEqual([400, 'NVENT_INVALID', 'positions: expected an array'])
    expect(await act('parked/replay', { consumer: 'mailer', positions: ['1', 2] })).toEqual([400, 'NVENT_INVALID', 'positions[1]: expected a text'])
  })
})

test('beside nvent its flows are those of its index, and nothing can be done to their runs', async () => {
  const { store } = adapters
  await store.index.add('shop:flows', 'cart', 1, {})
  await store.index.add('shop:flow:runs:cart', 'c1', 1, { status: 'completed' })
  await store.append('shop:flow:run:c1', { type: 'flow.start', runId: 'c1', flowName: 'cart' })
  const { url, stop } = await served(false, '() => true', 'shop')
  const ask = async (path: string) => (await fetch(`${url}/_nvent/inspector/api/${path}`)).json()
  expect(await ask('overview')).toMatchObject({ canAct: false, flows: [{ id: 'cart', steps: [] }] })
  expect((await ask('runs')).runs).toMatchObject([{ id: 'c1', flow: 'cart', metadata: { status: 'completed' } }])
  expect((await ask('events?flow=cart&id=c1')).map(({ type }: any) => type)).toEqual(['flow.start'])
  expect(ids(await ask('search?q=c'))).toEqual(['c1'])
  await stop()
})

/** Reads a response as it comes. */
function reader(response: Response) {
  const body = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  return {
    async until(pattern: RegExp) {
      while (!pattern.test(text)) {
        const { done, value } = await body.read()
        if (done) throw new Error(`ended before ${pattern}: ${text}`)
        text += value
      }
    },
    end: () => body.cancel(),
  }
}
