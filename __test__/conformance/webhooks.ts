import { createEventBus, createWebhookWiring, createWiringRegistry, MemoryStreamAdapter } from 'nvent-native'
import type { EventBus, QueueAdapter, StoreAdapter, WebhookDefinition, WebhookDelivery, WebhookWiring } from 'nvent-native'
import { Webhook } from 'standardwebhooks'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { deliveryId } from '../../lib/webhook/deliveries'
import { Receiver, setDelays } from '../support/receiver'
import { gate, Inbox, nextWarning, rejects, until } from '../support/until'

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const OTHER = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'

/** What webhooks promise, on a store and a queue. */
export const webhookSuite = (title: string, make: (bus: EventBus) => Promise<{ store: StoreAdapter, queue: QueueAdapter }>): void => void describe(title, () => {
  let receiver: Receiver
  let store: StoreAdapter
  let queue: QueueAdapter
  let stream: MemoryStreamAdapter
  let wiring: WebhookWiring | undefined

  beforeAll(async () => {
    receiver = await Receiver.start()
    // Stored times are in the past at once.
    setDelays([1, 2, 3])
  })
  afterAll(async () => {
    setDelays(undefined)
    await receiver.stop()
  })
  beforeEach(async () => {
    receiver.requests.length = 0
    receiver.respond = ({ answer }) => void answer.end()
    ;({ store, queue } = await make(createEventBus()))
    await Promise.all([store.init(), queue.init()])
    stream = new MemoryStreamAdapter()
  })
  afterEach(async () => {
    for (const { answer } of receiver.requests) answer.destroy()
    await wiring?.stop()
    await queue.close()
    await stream.shutdown()
    await store.close()
  })

  async function start(...webhooks: Array<Partial<WebhookDefinition>>): Promise<WebhookWiring> {
    wiring = createWebhookWiring({
      store, queue, stream,
      webhooks: (webhooks.length > 0 ? webhooks : [{}]).map(webhook => ({ name: 'hook', types: 'order.*', url: receiver.url, secret: SECRET, allowPrivate: true, ...webhook })),
    })
    await wiring.start()
    return wiring
  }

  const append = (type: string, data: any = {}, subject = 's'): Promise<any> => store.append(subject, { type, data })
  async function ended(state: 'delivered' | 'failed', count = 1, name = 'hook'): Promise<WebhookDelivery[]> {
    return until(`${count} ${state}`, async () => {
      const found = await wiring!.deliveries(name, { state })
      return found.length >= count ? found : undefined
    })
  }

  it('an event becomes a POST that the library of Standard Webhooks verifies', async () => {
    await start({ headers: { 'X-Own': 'ü'.normalize('NFD').slice(0, 1) }, secret: [OTHER, SECRET] })
    const event = await append('order.paid', { name: 'Zoë', n: 1 })
    await append('other', {})
    const [delivery] = await ended('delivered')
    expect(receiver.requests).toHaveLength(1)
    const [{ headers, body }] = receiver.requests as [any]
    expect(headers).toMatchObject({ 'content-type': 'application/json', 'x-own': 'u', 'webhook-id': delivery!.id })
    expect(headers['webhook-signature'].split(' ')).toHaveLength(2)
    for (const secret of [SECRET, OTHER]) {
      expect(new Webhook(secret).verify(body, headers)).toMatchObject({
        type: 'order.paid', timestamp: new Date(event.ts).toISOString(), data: { id: event.id, type: 'order.paid', data: { name: 'Zoë', n: 1 } },
      })
    }
    expect(delivery).toMatchObject({ event: 'order.paid', subject: 's', eventId: event.id, state: 'delivered', attempts: 1, status: 200 })
    expect(delivery!.id).toMatch(new RegExp(`^hook:${event.id}:[0-9a-f]{16}$`))
  })

  it('flow and filter select, and url and body are made for each event', async () => {
    await start({
      flow: ['shop'], filter: { 'data.total': [5, 6] },
      url: event => `${receiver.url}${event.data.total}`, body: event => ({ sum: event.data.total }),
    })
    for (const [flowName, total] of [['shop', 4], ['shop', 5], ['other', 5], [undefined, 6], ['shop', 6]] as const) {
      await store.append('s', { type: 'order.paid', ...flowName ? { flowName } : {}, data: { total } })
    }
    await ended('delivered', 2)
    expect(receiver.requests.map(({ path, body }) => [path, body]).sort()).toEqual([['/5', '{"sum":5}'], ['/6', '{"sum":6}']])
  })

  it('events of one id in several subjects are several deliveries', async () => {
    await start()
    const events = await Promise.all(['a', 'b', 'c'].map(subject => append('order.paid', {}, subject)))
    const delivered = await ended('delivered', 3)
    expect(new Set(delivered.map(({ id }) => id)).size).toBe(3)
    expect(new Set(delivered.map(({ subject }) => subject))).toEqual(new Set(['a', 'b', 'c']))
    expect(events).toHaveLength(3)
  })

  it('webhook.trigger is published for the flow, also where the receiver fails', async () => {
    receiver.respond = ({ answer }) => void answer.writeHead(500).end()
    const inbox = new Inbox()
    await stream.subscribe('webhook:*', inbox.take)
    await start({ attempts: 1 })
    const event = await store.append('s', { type: 'order.paid', flowName: 'shop', data: {} })
    const [message] = await inbox.atLeast(1)
    expect(message).toMatchObject({ type: 'webhook.trigger', data: { event: { id: event.id, flowName: 'shop' } } })
  })

  it('every kind of failure is repeated with the same id, then parked with a clear error', async () => {
    const failures: Array<[RegExp, (request: any) => void]> = [
      [/the receiver answered 500/, ({ answer }) => void answer.writeHead(500).end('no')],
      [/the receiver answered 404/, ({ answer }) => void answer.writeHead(404).end()],
      [/the receiver answered 302: redirects are not followed/, ({ answer }) => void answer.writeHead(302, { location: `${receiver.url}moved` }).end()],
      [/the connection failed/, ({ answer }) => void answer.socket.destroy()],
      [/no response within 100 ms/, () => {}],
      [/no response within 100 ms/, ({ answer }) => {
        // Headers that never end.
        answer.socket.write('HTTP/1.1 200 OK\r\n')
        const dribble = setInterval(() => answer.socket.write('x: y\r\n'), 20)
        answer.socket.on('close', () => clearInterval(dribble))
      }],
    ]
    for (const [i, [error, respond]] of failures.entries()) {
      receiver.respond = respond
      receiver.requests.length = 0
      await start({ name: `hook${i}`, attempts: 3, timeout: 100 })
      await append('order.paid', { i })
      const [delivery] = await ended('failed', 1, `hook${i}`)
      expect(delivery).toMatchObject({ state: 'failed', attempts: 3, error: expect.stringMatching(error) })
      expect(receiver.requests.map(({ id }) => id)).toEqual(Array(3).fill(delivery!.id))
      expect(receiver.to('/moved')).toEqual([])
      await wiring!.stop()
    }
  })

  it('a body without end is no failure, and does not hold the delivery up', async () => {
    let closed = 0
    receiver.respond = ({ answer }) => {
      answer.on('close', () => closed += 1)
      const write = (): void => {
        while (!answer.destroyed && answer.write('x'.repeat(65_536)));
      }
      answer.on('drain', write)
      write()
    }
    await start()
    await append('order.paid')
    await ended('delivered')
    await until('the connection is closed', () => closed === 1)
  })

  it('Retry-After is honoured, in seconds and as a date', async () => {
    const after = ['2', new Date(Date.now() + 60_000).toUTCString()]
    receiver.respond = ({ answer }) => void answer.writeHead(after.length % 2 ? 503 : 429, { 'retry-after': after.shift() ?? '0' }).end()
    await start({ attempts: 3 })
    await append('order.paid')
    // Of the next attempt.
    const delayOf = (attempts: number): Promise<number> => until(`attempt ${attempts} was made`, async () => {
      const [delivery] = await wiring!.deliveries('hook')
      const [job] = await queue.getJobs('nvent-webhook-hook', { state: ['delayed'] })
      return delivery?.attempts === attempts && job?.data.attempt === attempts + 1 ? (job as any).opts.delay : undefined
    })
    expect(await delayOf(1)).toBeGreaterThan(1_500)
    expect(await delayOf(2)).toBeGreaterThan(10_000)
  })

  it('a 410 disables the webhook until it is enabled; what came meanwhile is not delivered', async () => {
    receiver.respond = ({ answer }) => void answer.writeHead(410).end()
    const hooks = await start()
    const warned = nextWarning()
    await append('order.paid', { n: 1 })
    const [parked] = await ended('failed')
    expect(parked).toMatchObject({ status: 410, attempts: 1, error: 'the receiver answered 410: the webhook is disabled' })
    expect((await warned)).toMatchObject({ code: 'NVENT_WEBHOOK', message: expect.stringContaining('"hook"') })
    expect(await hooks.isEnabled('hook')).toBe(false)
    await append('order.paid', { n: 2 })
    await until('it was skipped', () => hooks.stats().skipped === 1)
    await rejects(() => hooks.redeliver(parked!.id), 'NVENT_INVALID', /is disabled/)

    // It holds in the store.
    await hooks.stop()
    const again = await start()
    expect(await again.isEnabled('hook')).toBe(false)
    receiver.respond = ({ answer }) => void answer.end()
    await again.enable('hook')
    await append('order.paid', { n: 3 })
    await again.redeliver(parked!.id)
    await ended('delivered', 2)
    expect(receiver.requests.map(({ body }) => JSON.parse(body).data.data.n).sort()).toEqual([1, 1, 3])
  })

  it('many requests that are answered with 410 at a time disable the webhook with one warning', async () => {
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    receiver.respond = () => {}
    const hooks = await start()
    for (let n = 0; n < 12; n++) await append('order.paid', { n }, `s${n}`)
    await until('all wait', () => hooks.stats().taken === 12 && receiver.requests.length === 10)
    for (const { answer } of receiver.requests) answer.writeHead(410).end()
    const failed = await ended('failed', 12)
    expect(failed.map(({ error }) => error).sort()).toEqual([
      ...Array(10).fill('the receiver answered 410: the webhook is disabled'), 'the webhook is disabled', 'the webhook is disabled',
    ])
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', note)
    // Of one code only so many come in a minute.
    expect(warnings.length).toBeLessThanOrEqual(1)
  })

  it('a parked delivery is delivered again under its id, with all attempts', async () => {
    receiver.respond = ({ answer }) => void answer.writeHead(500).end()
    const hooks = await start({ attempts: 2 })
    await append('order.paid')
    const [parked] = await ended('failed')
    await hooks.redeliver(parked!.id)
    await until('it failed again', () => receiver.requests.length === 4)
    await ended('failed')
    receiver.respond = ({ answer }) => void answer.end()
    await hooks.redeliver(parked!.id)
    const [delivered] = await ended('delivered')
    expect(delivered).toEqual({ ...parked, state: 'delivered', attempts: 1, status: 200, error: undefined, at: delivered!.at })
    expect(new Set(receiver.requests.map(({ id }) => id))).toEqual(new Set([parked!.id]))
    for (const id of ['hook:1-0:ab', 'nobody:1-0:ab', 'x', '']) await rejects(() => hooks.redeliver(id), 'NVENT_NOT_FOUND')
  })

  it('a function that throws fails its own delivery, and no other', async () => {
    await start({
      attempts: 2,
      url: ({ data }) => {
        if (data.bad === 'url') throw new Error('no url')
        return data.bad === 'type' ? 7 as never : receiver.url
      },
      body: ({ data }) => {
        if (data.bad === 'body') throw new Error('no body')
        return data.bad === 'json' ? { big: 1n } : 'plain text'
      },
    })
    for (const bad of ['url', 'body', 'type', 'json', undefined]) await append('order.paid', { bad })
    await ended('delivered')
    const failed = await ended('failed', 4)
    expect(failed.map(({ error, attempts }) => [error, attempts]).sort()).toEqual([
      ['body.big: a BigInt has no JSON; make it a string', 2], ['body: no body', 2], ['url: expected a string, got number', 2], ['url: no url', 2],
    ])
    expect(receiver.requests.map(({ body }) => body)).toEqual(['plain text'])
  })

  it('a receiver that hangs delays no other webhook, and no other of its own deliveries', async () => {
    receiver.respond = ({ path, answer }) => {
      if (path === '/fast') answer.end()
    }
    await start({ name: 'slow', url: `${receiver.url}slow` }, { name: 'fast', url: `${receiver.url}fast` })
    for (let n = 0; n < 30; n++) await append('order.paid', { n }, `s${n}`)
    await ended('delivered', 30, 'fast')
    await until('as many as may be', () => receiver.to('/slow').length === 10)
    expect(wiring!.stats().running).toBe(10)
    receiver.respond = ({ answer }) => void answer.end()
    for (const { answer } of receiver.to('/slow')) answer.end()
    await ended('delivered', 30, 'slow')
    expect(receiver.to('/slow')).toHaveLength(30)
  })

  it('an address that is not public is refused, unless it is allowed', async () => {
    await start({ attempts: 2, allowPrivate: false }, { name: 'named', attempts: 1, url: `http://localhost:${receiver.port}/`, allowPrivate: false })
    await append('order.paid')
    expect((await ended('failed'))[0]!.error).toBe('127.0.0.1 is refused: 127.0.0.1 is a loopback address; allowPrivate: true permits it')
    expect((await ended('failed', 1, 'named'))[0]!.error).toMatch(/^localhost is refused: .* is a loopback address/)
    expect(receiver.requests).toEqual([])
  })

  it('test sends one event and resolves with the status', async () => {
    receiver.respond = ({ answer }) => void answer.writeHead(503).end()
    const hooks = await start()
    expect(await hooks.test('hook')).toEqual({ status: 503, ms: expect.any(Number) })
    const [{ body, headers }] = receiver.requests as [any]
    expect(new Webhook(SECRET).verify(body, headers)).toMatchObject({ type: 'webhook.test', data: { type: 'webhook.test' } })
    expect(receiver.requests).toHaveLength(1)
    expect(await hooks.deliveries('hook')).toEqual([])
    await rejects(() => hooks.test('hok'), 'NVENT_NOT_FOUND', /did you mean "hook"/)
  })

  it('an event that is no longer in the store parks its delivery', async () => {
    receiver.respond = ({ answer }) => {
      void store.stream.delete('s').then(() => answer.writeHead(500).end())
    }
    await start()
    await append('order.paid')
    expect((await ended('failed'))[0]).toMatchObject({ attempts: 1, error: 'the event is no longer in the store' })
  })

  it('deliveries are listed newest first, by state and bounded', async () => {
    receiver.respond = ({ body, answer }) => void answer.writeHead(JSON.parse(body).data.data.n % 2 ? 200 : 500).end()
    const hooks = await start({ attempts: 1 })
    for (let n = 0; n < 6; n++) {
      await append('order.paid', { n })
      await until('it has ended', async () => (await hooks.deliveries('hook', { state: 'pending' })).length === 0 && receiver.requests.length === n + 1)
    }
    expect(await hooks.deliveries('hook')).toHaveLength(6)
    expect(await hooks.deliveries('hook', { limit: 2 })).toHaveLength(2)
    expect((await hooks.deliveries('hook', { state: 'failed' })).map(({ state }) => state)).toEqual(['failed', 'failed', 'failed'])
    await rejects(() => hooks.deliveries('hook', { state: 'deliverd' as never }), 'NVENT_INVALID', /options\.state.*did you mean "delivered"/)
    await rejects(() => hooks.deliveries('hook', { limit: -1 }), 'NVENT_INVALID', /options\.limit/)
    expect(hooks.stats()).toMatchObject({ webhooks: 1, taken: 6, attempts: 6, delivered: 3, failed: 3, parked: 3, running: 0 })
  })

  it('secrets are in no delivery, job, error or statistic', async () => {
    receiver.respond = ({ answer }) => void answer.writeHead(500).end()
    const hooks = await start({ headers: { authorization: 'Bearer hunter2' }, url: `${receiver.url}?token=hunter2`, attempts: 2 })
    setDelays([60_000])
    try {
      await append('order.paid')
      await until('it waits', async () => (await hooks.deliveries('hook'))[0]?.attempts === 1)
      const jobs = await until('the next job', async () => {
        const found = await queue.getJobs('nvent-webhook-hook', { state: ['delayed'] })
        return found.length > 0 ? found : undefined
      })
      const texts = JSON.stringify([jobs, await hooks.deliveries('hook'), hooks.stats(), await store.index.read('nq:webhook:hook')])
      expect(texts).not.toMatch(/hunter2|whsec|MfKQ/)
    }
    finally {
      setDelays([1, 2, 3])
    }
  })

  it('the newest 10,000 deliveries are kept, and all that are pending', async () => {
    const entry = { state: 'delivered', event: 'x', subject: 's', eventId: '1-0', attempts: 1, round: 0, at: 1, dueAt: 0 }
    await Promise.all(Array.from({ length: 10_300 }, (_, n) => store.index.add('nq:webhook:hook', `hook:${n}`, n, n % 20 ? entry : { ...entry, state: 'pending' })))
    const hooks = await start()
    await until('those without an event are parked', () => hooks.stats().parked === 515)
    await append('order.paid')
    await ended('delivered', 1)
    await until('the oldest are gone', async () => await store.index.count('nq:webhook:hook') <= 10_001)
    expect(await store.index.get('nq:webhook:hook', 'hook:10299')).not.toBeNull()
    expect(await store.index.get('nq:webhook:hook', 'hook:1')).toBeNull()
  })

  it('an event that is taken again, as after a crash, is delivered once', async () => {
    await (await start()).stop()
    const [over, failed, begun] = await Promise.all(['ended', 'failed', 'begun', 'new'].map(name => append('order.paid', { name }, name)))
    for (const [{ id: eventId }, subject, state] of [[over, 'ended', 'delivered'], [failed, 'failed', 'failed'], [begun, 'begun', 'pending']] as const) {
      const id = deliveryId('hook', subject, eventId)
      await store.index.add('nq:webhook:hook', id, 1, { state, event: 'order.paid', subject, eventId, attempts: 0, round: 0, at: 1, dueAt: 0 })
    }
    const hooks = await start()
    await until('all are delivered', () => hooks.stats().delivered === 2)
    await append('order.paid', { name: 'last' })
    await until('what comes later is delivered', () => hooks.stats().delivered === 3)
    expect(receiver.requests.map(({ body }) => JSON.parse(body).data.data.name).sort()).toEqual(['begun', 'last', 'new'])
    expect(hooks.stats().taken).toBe(3)
  })

  it('without a stream, events of flows are delivered', async () => {
    wiring = createWebhookWiring({ store, queue, webhooks: [{ name: 'hook', types: '*', url: receiver.url, allowPrivate: true }] })
    await wiring.start()
    await store.append('s', { type: 'order.paid', flowName: 'shop' })
    await ended('delivered')
    expect(await wiring.deliveries('hook')).toHaveLength(1)
    await until('the event is acknowledged', async () => (await store.consumers())[0]!.lag === 0)
    expect(wiring.stats()).toMatchObject({ taken: 1, attempts: 1 })
  })

  it('a delivery whose job was lost is found', async () => {
    setDelays([1], 50)
    try {
      await start()
      const event = await append('other')
      const entry = { state: 'pending', event: 'other', subject: 's', eventId: event.id, attempts: 0, round: 0, at: 1, dueAt: 0 }
      await store.index.add('nq:webhook:hook', 'hook:lost', 1, entry)
      expect((await ended('delivered'))[0]!.id).toBe('hook:lost')
    }
    finally {
      setDelays([1, 2, 3])
    }
  })

  it('stop resolves when the request under way has ended, and its outcome is stored', async () => {
    const { opened, open } = gate()
    receiver.respond = ({ answer }) => void opened.then(() => answer.end())
    const hooks = await start()
    await append('order.paid')
    await until('it is under way', () => receiver.requests.length === 1)
    let stopped = false
    const stop = Promise.resolve(hooks.stop()).then(() => stopped = true)
    await append('order.paid', {}, 'later')
    await store.feed.head()
    expect(stopped).toBe(false)
    open()
    await stop
    const again = await start()
    await ended('delivered', 2)
    expect(again.stats()).toMatchObject({ attempts: 1 })
    expect(receiver.requests).toHaveLength(2)
  })

  it('a body of megabytes arrives whole, and one that is too large parks', async () => {
    await start({ attempts: 1, body: ({ data }) => 'ü'.repeat(data.characters) })
    await append('order.paid', { characters: 4_000_000 })
    await append('order.paid', { characters: 11_000_000 })
    await ended('delivered')
    expect((await ended('failed'))[0]!.error).toBe('body: has 22000000 bytes; 20971520 are the most')
    expect(receiver.requests.map(({ body }) => body.length)).toEqual([4_000_000])
  })

  it('the registry has them where they are configured', async () => {
    const bus = createEventBus()
    const registry = createWiringRegistry({
      bus, store, queue, stream, webhooks: () => [{ name: 'hook', types: '*', url: receiver.url, allowPrivate: true }],
    })
    const inbox = new Inbox()
    await stream.subscribe('webhook:*', inbox.take)
    await registry.start()
    wiring = registry.webhooks
    await store.append('s', { type: 'order.paid', flowName: 'shop', data: {} })
    await ended('delivered')
    await inbox.atLeast(1)
    expect(receiver.requests[0]!.headers['webhook-signature']).toBeUndefined()
    expect(registry.stats().webhooks).toMatchObject({ delivered: 1 })
    await registry.stop()
    await rejects(() => registry.webhooks!.deliveries('hook'), 'NVENT_CLOSED')
    expect(createWiringRegistry({ bus, store, queue, stream }).webhooks).toBeUndefined()
  })

  it('definitions are checked where they are made', () => {
    const hook = { name: 'hook', types: '*', url: 'https://example.com/' }
    const wrong: Array<[any, RegExp]> = [
      [{ ...hook, nam: 1 }, /^webhooks\[0\]\.nam: unknown option; did you mean "name"/],
      [{ types: '*', url: 'https://example.com/' }, /^webhooks\[0\]\.name: required/],
      [{ ...hook, name: 'a:b' }, /^webhooks\[0\]\.name: expected 1 to 100 letters/],
      [{ ...hook, types: [] }, /^webhooks\[0\]\.types: expected at least one/],
      [{ ...hook, types: ['a', 3] }, /^webhooks\[0\]\.types\[1\]/],
      [{ ...hook, url: 'nowhere' }, /^webhooks\[0\]\.url: not usable/],
      [{ ...hook, url: 'ftp://example.com' }, /^webhooks\[0\]\.url: expected http: or https:/],
      [{ ...hook, url: 'https://me:hunter2@example.com' }, /^webhooks\[0\]\.url: has a user or password/],
      [{ ...hook, secret: ['whsec_hunter2!'] }, /^webhooks\[0\]\.secret: expected whsec_/],
      [{ ...hook, headers: { 'webhook-id': 'x' } }, /^webhooks\[0\]\.headers\.webhook-id/],
      [{ ...hook, headers: { x: 'hunter2\r\ny: 1' } }, /^webhooks\[0\]\.headers\.x/],
      [{ ...hook, headers: { x: 1 } }, /^webhooks\[0\]\.headers\.x/],
      [{ ...hook, timeout: 0 }, /^webhooks\[0\]\.timeout/],
      [{ ...hook, attempts: 1.5 }, /^webhooks\[0\]\.attempts/],
      [{ ...hook, filter: { a: undefined } }, /^webhooks\[0\]\.filter\.a/],
    ]
    for (const [webhook, message] of wrong) {
      for (const create of [() => createWebhookWiring({ webhooks: [webhook] }), () => createWiringRegistry({ webhooks: [webhook] })]) {
        expect(create, JSON.stringify(webhook)).toThrow(message)
        expect(create).toThrow(expect.objectContaining({ code: 'NVENT_INVALID', message: expect.not.stringContaining('hunter2') }))
      }
    }
    expect(() => createWebhookWiring({ webhooks: [hook, hook] })).toThrow(/webhooks\[1\]\.name: "hook" is the name of another webhook/)
    expect(() => createWebhookWiring({} as never)).toThrow(/^webhooks: required/)
  })
})
