/** The jobs of a webhook's deliveries, on a custom queue and a store with injected failures. */
import { createEventBus, createWebhookWiring, MemoryStoreAdapter } from 'nvent-native'
import type { ConsumerContext, EventRecord, NewJob, QueueAdapter, StoreAdapter, StreamAdapter, WebhookDefinition, WebhookWiring } from 'nvent-native'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { intercepted, outage, OwnQueue } from './support/own'
import { Receiver, setDelays } from './support/receiver'
import { gate, nextWarning, rejects, until } from './support/until'

const INDEX = 'nq:webhook:hook'
const SWITCH = 'nq:webhook-state:hook'
const MINUTE = 60_000
/** How often is looked for deliveries that have no job, in ms. */
const SWEEP_INTERVAL = 10 * MINUTE

let receiver: Receiver
let inner: MemoryStoreAdapter
let queue: OwnQueue
let hooks: WebhookWiring
/** Called before a call of the store, with its name; what it throws or rejects with is the call's. */
let before: (method: string) => unknown
/** Whether the consumer says that it works. */
let isActive: boolean
/** How often it was asked. */
let looks: number
/** Gives an event to the webhook. */
let take: (event: EventRecord, context: ConsumerContext) => unknown

beforeAll(async () => {
  receiver = await Receiver.start()
  setDelays([MINUTE], SWEEP_INTERVAL)
})
afterAll(async () => {
  setDelays(undefined)
  await receiver.stop()
})
beforeEach(() => {
  receiver.requests.length = 0
  receiver.respond = ({ answer }) => void answer.end()
  inner = new MemoryStoreAdapter({ bus: createEventBus() })
  queue = new OwnQueue()
  before = () => {}
  ;[isActive, looks] = [true, 0]
})
afterEach(async () => {
  vi.useRealTimers()
  before = () => {}
  await hooks.stop()
  await inner.close()
})

/** A store of the application's own, on one of this package. */
function own(): StoreAdapter {
  const checked = (object: object): any => intercepted(object, method => before(method))
  const consume: StoreAdapter['consume'] = async (name, handler, opts) => {
    take = handler
    const consumer = await inner.consume(name, handler, opts)
    const stats = () => {
      looks += 1
      return { ...consumer.stats(), active: isActive }
    }
    return { ...consumer, stats, stop: () => consumer.stop() }
  }
  return { consume, stream: inner.stream, index: checked(inner.index), kv: checked(inner.kv) } as unknown as StoreAdapter
}

async function start(webhook: Partial<WebhookDefinition> = {}, stream?: StreamAdapter): Promise<void> {
  hooks = createWebhookWiring({
    store: own(), queue: queue as unknown as QueueAdapter, stream,
    webhooks: [{ name: 'hook', types: 'order.*', url: receiver.url, allowPrivate: true, ...webhook }],
  })
  await hooks.start()
}
const append = (fields: object = {}): Promise<EventRecord> => inner.append('s', { type: 'order.paid', data: {}, ...fields })
const run = ({ data }: Pick<NewJob, 'data'>): Promise<unknown> => queue.run('nvent-webhook-hook', { data })
const stored = async (id: string): Promise<any> => (await inner.index.get(INDEX, id))!.metadata
/** Adds a delivery whose job is not there. */
async function pending(id: string, score: number, fields: object = {}): Promise<void> {
  await inner.index.add(INDEX, id, score, { state: 'pending', event: 'order.paid', subject: 's', eventId: '1-0', attempts: 0, round: 0, at: 1, dueAt: 0, ...fields })
}

it('each attempt is a job of its own, with its id, delay and options', async () => {
  receiver.respond = ({ answer }) => void answer.writeHead(500).end()
  await start({ attempts: 2 })
  expect(queue.workers).toEqual([['nvent-webhook-hook', 'deliver', { concurrency: 10 }]])
  expect(queue.started).toEqual(['nvent-webhook-hook'])
  await append()
  const first = await queue.next()
  const { id } = first.data
  const opts = { jobId: id, delay: 0, attempts: 1_000_000, backoff: { type: 'fixed', delay: 5_000 }, timeout: 0, removeOnComplete: true, removeOnFail: true }
  expect(first).toEqual({ name: 'deliver', data: { id, round: 0, attempt: 1 }, opts })
  expect(await run(first)).toBeNull()
  const second = await queue.next()
  expect(second).toEqual({ name: 'deliver', data: { id, round: 0, attempt: 2 }, opts: { ...opts, jobId: `${id}~0.2`, delay: expect.any(Number) } })
  expect(second.opts!.delay).toBeGreaterThan(MINUTE / 2)
  await run(second)
  expect(await stored(id)).toMatchObject({ state: 'failed', attempts: 2 })
  await hooks.redeliver(id)
  expect(await queue.next()).toEqual({ name: 'deliver', data: { id, round: 1, attempt: 1 }, opts: { ...opts, jobId: `${id}~1.1` } })
  expect(queue.jobs).toEqual([])
})

it('a job that runs again sends nothing where its attempt is over: what follows is enqueued again', async () => {
  receiver.respond = ({ answer }) => void answer.writeHead(500).end()
  await start({ attempts: 3 })
  await append()
  const first = await queue.next()
  await run(first)
  const second = await queue.next()
  await run(first)
  const again = await queue.next()
  expect(again).toEqual({ ...second, opts: { ...second.opts, delay: expect.any(Number) } })
  expect(again.opts!.delay).toBeGreaterThan(MINUTE / 2)
  expect(receiver.requests).toHaveLength(1)
  expect(await stored(first.data.id)).toMatchObject({ state: 'pending', attempts: 1 })
})

it('a job does nothing where its delivery has ended, was begun again since, or is gone', async () => {
  await start()
  await append()
  const first = await queue.next()
  await run(first)
  await run(first)
  // As after a crash between the two.
  await run({ data: { ...first.data, attempt: 2 } })
  await hooks.redeliver(first.data.id)
  const again = await queue.next()
  await run({ data: { ...first.data, attempt: 1 } })
  expect(receiver.requests).toHaveLength(1)
  await run(again)
  expect(receiver.requests).toHaveLength(2)
  await inner.index.delete(INDEX, first.data.id)
  expect(await run(again)).toBeNull()
  expect(receiver.requests).toHaveLength(2)
  expect(queue.jobs).toEqual([])
  expect(hooks.stats()).toMatchObject({ attempts: 2, delivered: 2, failed: 0, running: 0 })
})

it('an event that is taken again goes on with the attempts that were made', async () => {
  await start()
  const event = await append()
  const { data: { id } } = await queue.next()
  await inner.index.update(INDEX, id, { attempts: 1, status: 500 })
  await take(event, { subject: 's', position: '', attempt: 1, signal: new AbortController().signal })
  expect((await queue.next()).data).toEqual({ id, round: 0, attempt: 2 })
  expect(await stored(id)).toMatchObject({ attempts: 1, status: 500 })
})

it('what was trimmed before it was read is no delivery', async () => {
  await start({ types: '*' })
  const gap = { type: 'stream.gap', data: { reason: 'trimmed', topic: 'webhook:hook', missed: 2 }, ts: 1, id: '' }
  await take(gap, { subject: '', position: '', attempt: 1, signal: new AbortController().signal })
  expect(await inner.index.count(INDEX)).toBe(0)
})

it('an event without a flow is not announced; a stream that fails is warned of, and delays nothing', async () => {
  const topics: string[] = []
  const stream = { publish: async (topic: string) => {
    topics.push(topic)
    throw new Error('no stream')
  } } as unknown as StreamAdapter
  const warned = nextWarning()
  await start({}, stream)
  await append()
  await queue.next()
  await append({ flowName: 'shop' })
  await queue.next()
  expect(await warned).toMatchObject({ code: 'NVENT_UNAVAILABLE', message: 'webhook.trigger was not published: no stream' })
  expect(topics).toEqual(['webhook:shop'])
})

it('an outcome that could not be stored at once is stored when the store is back, without another request', async () => {
  receiver.respond = ({ answer }) => void answer.writeHead(500).end()
  await start()
  await append()
  const job = await queue.next()
  let failures = 2
  queue.before = () => {
    if (failures-- > 0) throw outage()
  }
  let refused = 0
  before = (method) => {
    if (method === 'update' && refused++ === 0) throw outage()
  }
  await run(job)
  expect((await queue.next()).data.attempt).toBe(2)
  expect(await stored(job.data.id)).toMatchObject({ attempts: 1, status: 500, dueAt: expect.any(Number) })
  expect(receiver.requests).toHaveLength(1)
})

it('where a good answer cannot be stored the job is repeated, which is no failure of the receiver', async () => {
  await start()
  await append()
  const job = await queue.next()
  before = (method) => {
    if (method === 'update') throw new Error('no room')
  }
  await expect(run(job)).rejects.toThrow('no room')
  before = () => {}
  expect(await stored(job.data.id)).toMatchObject({ state: 'pending', attempts: 0 })
  expect(hooks.stats()).toMatchObject({ attempts: 1, failed: 0, delivered: 0 })
  await run(job)
  expect(await stored(job.data.id)).toMatchObject({ state: 'delivered', attempts: 1 })
})

it('an outage while an event is taken is waited out; another failure lets the consumer repeat it', async () => {
  const warnings: Error[] = []
  const note = (warning: Error): void => void warnings.push(warning)
  process.on('warning', note)
  try {
    let failures = 1
    before = (method) => {
      if (method === 'get' && failures-- > 0) throw outage()
    }
    await start()
    await append()
    await queue.next()
    expect(warnings).toEqual([])
    before = () => {}
    failures = 1
    queue.before = () => {
      if (failures-- > 0) throw new Error('refused')
    }
    await append()
    await queue.next()
    expect(failures).toBeLessThan(0)
    expect((await inner.consumers())[0]).toMatchObject({ parked: 0 })
  }
  finally {
    process.off('warning', note)
  }
})

it('a webhook that is disabled parks what waits, and attempts nothing', async () => {
  await start()
  await append()
  const job = await queue.next()
  await hooks.disable('hook')
  await run(job)
  expect(await stored(job.data.id)).toMatchObject({ state: 'failed', attempts: 0, error: 'the webhook is disabled' })
  expect(receiver.requests).toEqual([])
})

it('a 410 disables through an outage, again after enable(), and changes nothing where it is disabled', async () => {
  receiver.respond = ({ answer }) => void answer.writeHead(410).end()
  await start()
  await append()
  let failures = 1
  before = (method) => {
    if (method === 'set' && failures-- > 0) throw outage()
  }
  await run(await queue.next())
  expect(await inner.kv.get(SWITCH)).toMatchObject({ enabled: false, reason: '410' })
  await hooks.enable('hook')
  await append()
  await run(await queue.next())
  expect(await hooks.isEnabled('hook')).toBe(false)
  await hooks.enable('hook')
  await append()
  const { opened, open } = gate()
  receiver.respond = ({ answer }) => void opened.then(() => answer.writeHead(410).end())
  const running = run(await queue.next())
  await until('it is under way', () => receiver.requests.length === 3)
  await hooks.disable('hook')
  const disabled = await inner.kv.get(SWITCH)
  open()
  await running
  expect(disabled).toMatchObject({ reason: 'disable()' })
  expect(await inner.kv.get(SWITCH)).toEqual(disabled)
})

it('stop waits for an event that is being taken, and for no store that is down', async () => {
  await start()
  const { opened, open } = gate()
  let held = 0
  before = (method) => {
    if (method !== 'get') return
    held += 1
    return opened
  }
  await append()
  await until('it is being taken', () => held === 1)
  let stopped = false
  const stopping = Promise.resolve(hooks.stop()).then(() => stopped = true)
  for (let n = 0; n < 5; n++) await inner.read('s')
  expect(stopped).toBe(false)
  open()
  await stopping
  const job = await queue.next()

  before = () => {}
  await start()
  await queue.next()
  let refused = 0
  before = (method) => {
    if (method !== 'update') return
    refused += 1
    throw outage()
  }
  const running = run(job)
  const failed = expect(running).rejects.toThrow('down')
  await until('its outcome cannot be stored', () => refused > 0)
  await hooks.stop()
  await failed
  before = () => {}
  // A job that begins after it sends nothing.
  await expect(run(job)).rejects.toThrow('the webhooks were stopped')
  expect(receiver.requests).toHaveLength(1)
  expect(await stored(job.data.id)).toMatchObject({ state: 'pending', attempts: 0 })
})

it('what is pending has its jobs when the start resolves, each with what is left of its wait', async () => {
  const now = Date.now()
  await pending('hook:now', 1)
  await pending('hook:later', 2, { attempts: 2, dueAt: now + 10 * MINUTE })
  await start()
  expect(queue.jobs.map(({ opts }) => opts!.jobId)).toEqual(['hook:now', 'hook:later~0.3'])
  expect(queue.jobs[0]!.opts!.delay).toBe(0)
  expect(queue.jobs[1]!.opts!.delay).toBeGreaterThan(9 * MINUTE)
})

it('what is pending is looked through once, and again by a process that gets the consumer back', async () => {
  let reads = 0
  before = (method) => {
    if (method === 'read') reads += 1
  }
  await start()
  const asked = looks
  await until('it has looked again at its consumer', () => looks > asked + 1)
  expect(reads).toBe(1)
  isActive = false
  const seen = looks
  await until('it has seen that', () => looks > seen)
  await pending('hook:lost', 1, { at: Date.now() })
  isActive = true
  expect((await queue.next()).data).toEqual({ id: 'hook:lost', round: 0, attempt: 1 })
})

it.each([['has passed', SWEEP_INTERVAL + MINUTE], ['is behind a clock that was set back', -24 * 60 * MINUTE]])(
  'later only what should have been attempted long ago is enqueued, when the interval %s', async (_, change) => {
    await start()
    const now = Date.now() + change
    // In the order in which they are looked at.
    await pending('hook:recent', 1, { at: now })
    await pending('hook:due-recently', 2, { attempts: 1, dueAt: now - MINUTE })
    await pending('hook:waits', 3, { attempts: 1, dueAt: now + MINUTE })
    await pending('hook:lost', 4)
    await pending('hook:lost-later', 5, { attempts: 1, dueAt: 2 })
    vi.useFakeTimers({ toFake: ['Date'], now })
    await until('all are looked at', () => queue.jobs.length >= 2)
    expect(queue.jobs.map(({ opts }) => opts!.jobId)).toEqual(['hook:lost', 'hook:lost-later~0.2'])
  })

it('where that fails it is tried again at once, and warned of', async () => {
  const warned = nextWarning()
  await start()
  let failures = 1
  before = (method) => {
    if (method === 'read' && failures-- > 0) throw new Error('no index')
  }
  await pending('hook:lost', 1)
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + SWEEP_INTERVAL + MINUTE })
  await queue.next()
  expect(failures).toBeLessThan(0)
  expect(await warned).toMatchObject({ code: 'NVENT_HANDLER', detail: expect.stringContaining('no index') })
})

it('a start whose store cannot be read rejects, and leaves nothing at work', async () => {
  before = (method) => {
    if (method === 'read') throw outage()
  }
  await rejects(start(), 'NVENT_UNAVAILABLE', /down/)
  const next = await inner.consume('webhook:hook', () => {})
  await until('its consumer has ended', () => next.stats().active)
  await next.stop()
})
