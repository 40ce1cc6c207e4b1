/** Spans through @opentelemetry/api, collected by the exporter of the SDK. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base'
import {
  createEventBus, createWebhookWiring, createWiringRegistry, defineFlow, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter,
  RedisStoreAdapter, startFlow,
} from 'nvent-native'
import type { StoreAdapter } from 'nvent-native'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { run } from './support/process'
import { Receiver, setDelays } from './support/receiver'
import { RedisServer } from './support/redis'
import { Inbox, until } from './support/until'

const exporter = new InMemorySpanExporter()
let server: RedisServer
let folder: string
beforeAll(async () => {
  server = await RedisServer.start()
  folder = await mkdtemp(join(tmpdir(), 'nvent-trace-'))
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
})
afterAll(async () => {
  context.disable()
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})
beforeEach(() => {
  exporter.reset()
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }))
})
afterEach(() => trace.disable())

const spans = (name: string): ReadableSpan[] => exporter.getFinishedSpans().filter(span => span.name === name)
const idOf = (span: ReadableSpan): string => `00-${span.spanContext().traceId}-${span.spanContext().spanId}-01`
const parentOf = (span: ReadableSpan): ReadableSpan | undefined =>
  exporter.getFinishedSpans().find(other => other.spanContext().spanId === span.parentSpanContext?.spanId)
const app = trace.getTracer('app')
const inRoot = <T>(work: () => Promise<T>): Promise<T> => app.startActiveSpan('request', { root: true }, async (span) => {
  try {
    return await work()
  }
  finally {
    span.end()
  }
})

const STORES: Array<[string, () => StoreAdapter]> = [
  ['memory', () => new MemoryStoreAdapter({ bus: createEventBus() })],
  ['file', () => new FileStoreAdapter({ bus: createEventBus(), dataDir: join(folder, 'store') })],
  ['redis', () => new RedisStoreAdapter({ bus: createEventBus(), connection: server.connection })],
]

describe.each(STORES)('a store on %s', (_, make) => {
  it('keeps the trace of an append in the event, for every reader, and a consumer continues it', async () => {
    const store = make()
    const handled = new Inbox<any>()
    const consumer = await store.consume('audit', event => handled.take({ ...event, in: trace.getActiveSpan()?.spanContext().traceId }))
    const record = await inRoot(() => store.stream.append('s', { type: 'order.paid', runId: 'r1', data: { n: 1 } }))
    const [append] = spans('append')
    expect(parentOf(append!)!.name).toBe('request')
    expect(append!.kind).toBe(SpanKind.PRODUCER)
    expect(append!.attributes).toEqual({
      'messaging.system': 'nvent', 'messaging.operation.name': 'append', 'messaging.operation.type': 'send', 'messaging.destination.name': 's',
      'messaging.message.id': record.id, 'messaging.message.conversation_id': 'r1', 'nvent.event.type': 'order.paid',
    })
    expect(record).toMatchObject({ type: 'order.paid', data: { n: 1 }, traceparent: idOf(append!) })
    expect((await store.stream.read('s'))[0]).toEqual(record)
    const [event] = await handled.atLeast(1)
    await until('the span has ended', () => spans('process audit').length === 1)
    const [process] = spans('process audit')
    expect(parentOf(process!)).toBe(append)
    expect(process!.kind).toBe(SpanKind.CONSUMER)
    expect(event.in).toBe(append!.spanContext().traceId)
    await consumer.stop()
    await store.stream.delete('s')
    await store.close()
  })

  it('one trace leads from startFlow over all steps', async () => {
    const store = make()
    const queue = new MemoryQueueAdapter()
    const flow = defineFlow('order', {
      take: { emits: ['taken'], run: async (_, step) => step.emit('taken', {}) },
      pack: { subscribes: ['taken'], run: async () => app.startActiveSpan('packing', async span => span.end()) },
      thank: { subscribes: ['step:pack'], run: async () => 'thanks' },
    })
    const registry = createWiringRegistry({ store, queue, stream: new MemoryStreamAdapter(), bus: (store as any).bus, flow: { flows: [flow] } })
    await registry.start()
    const started = await inRoot(() => startFlow(flow, {}))
    expect(await started.result({ timeout: 20_000 })).toEqual({ status: 'completed' })
    await until('the last step has its span', () => spans('step order thank').length === 1 && spans('process order.thank').length === 1)
    await registry.stop()

    const [root] = spans('request')
    const way = (name: string): string[] => {
      const names: string[] = []
      for (let span: ReadableSpan | undefined = spans(name)[0]; span; span = parentOf(span)) names.push(span.name)
      return names.reverse()
    }
    const first = ['request', 'start order', 'append', 'process order.take', 'step order take']
    const second = [...first, 'append', 'process order.pack', 'step order pack']
    expect(way('packing')).toEqual([...second, 'packing'])
    expect(way('step order thank')).toEqual([...second, 'append', 'process order.thank', 'step order thank'])
    expect(new Set(exporter.getFinishedSpans().map(span => span.spanContext().traceId))).toEqual(new Set([root!.spanContext().traceId]))
    const [step] = spans('step order pack')
    expect(step!.attributes).toEqual({ 'nvent.flow.name': 'order', 'nvent.flow.run.id': started.runId, 'nvent.flow.step': 'pack' })
    const [start] = spans('start order')
    expect(start!.attributes).toEqual({ 'nvent.flow.name': 'order', 'nvent.flow.run.id': started.runId })
    expect([start!.kind, step!.kind]).toEqual([SpanKind.INTERNAL, SpanKind.INTERNAL])
    expect(spans('process order.pack')[0]!.attributes).toMatchObject({
      'messaging.operation.type': 'process', 'messaging.destination.name': 'order.pack', 'messaging.message.id': `${started.runId}__pack`, 'nvent.job.name': 'pack', 'nvent.job.attempt': 1,
    })
    await queue.close()
    await store.close()
  })
})

it('every attempt of a job has a span in the trace of its enqueue, with its error', async () => {
  const queue = new MemoryQueueAdapter()
  let left = 1
  queue.registerWorker('mail', 'send', async () => {
    if (left-- > 0) throw Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })
  })
  await inRoot(() => queue.enqueue('mail', { name: 'send', data: {}, opts: { attempts: 2 } }))
  await until('both attempts have ended', () => spans('process mail').length === 2)
  const [failed, succeeded] = spans('process mail')
  expect([failed, succeeded].map(span => [parentOf(span!)!.name, span!.attributes['nvent.job.attempt'], span!.status.code])).toEqual([
    ['enqueue mail', 1, SpanStatusCode.ERROR], ['enqueue mail', 2, SpanStatusCode.UNSET],
  ])
  expect(failed!.attributes['error.type']).toBe('ETIMEDOUT')
  expect(failed!.events[0]!.attributes!['exception.message']).toBe('no answer')
  await queue.close()
})

it('a publish has a span, and so has one that fails', async () => {
  const stream = new MemoryStreamAdapter()
  const received = new Inbox()
  await stream.subscribe('t', received.take)
  await inRoot(() => stream.publish('t', { type: 'x', data: 1 }))
  // The message is as it was given: it may go to browsers.
  expect((await received.atLeast(1))[0]).not.toHaveProperty('traceparent')
  await stream.shutdown()
  await expect(stream.publish('t', { type: 'x', data: 1 })).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
  const [published, refused] = spans('publish')
  expect(published!.attributes).toMatchObject({ 'messaging.operation.name': 'publish', 'messaging.destination.name': 't' })
  expect([refused!.status.code, refused!.attributes['error.type']]).toEqual([SpanStatusCode.ERROR, 'NVENT_CLOSED'])
})

it('a trace that the caller gives is left as it is, and nothing is added where no provider is registered', async () => {
  const store = new MemoryStoreAdapter({ bus: null })
  const queue = new MemoryQueueAdapter()
  const own = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
  expect((await store.append('s', { type: 'x', traceparent: own })).traceparent).toBe(own)
  await queue.enqueue('q', { name: 'n', data: {}, opts: { jobId: 'j', traceparent: own } })
  expect((await queue.getJob('q', 'j') as any).opts.traceparent).toBe(own)
  await expect(store.append('s', { type: '' })).rejects.toMatchObject({ code: 'NVENT_INVALID' })
  await expect(queue.enqueue('q', { name: 'n', data: {}, opts: { traceparent: 5 as any } })).rejects.toMatchObject({ code: 'NVENT_INVALID', message: expect.stringContaining('job.opts.traceparent') })
  await expect((queue as any).enqueue('q', null)).rejects.toMatchObject({ code: 'NVENT_INVALID' })
  trace.disable()
  exporter.reset()
  expect(await store.append('s', { type: 'x' })).not.toHaveProperty('traceparent')
  expect(exporter.getFinishedSpans()).toEqual([])
  await store.close()
  await queue.close()
})

it('a run that an event starts continues the trace of the event', async () => {
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus })
  const queue = new MemoryQueueAdapter()
  const flow = defineFlow('invoice', { write: { run: async () => {} } })
  const registry = createWiringRegistry({
    store, queue, stream: new MemoryStreamAdapter(), bus, flow: { flows: [flow] }, triggers: [{ id: 'paid', on: { event: 'order.paid' }, start: 'invoice' }],
  })
  await registry.start()
  await inRoot(() => store.stream.append('orders', { type: 'order.paid', data: {} }))
  await until('the step has run', () => spans('step invoice write').length === 1)
  const [request, step] = [spans('request')[0]!, spans('step invoice write')[0]!]
  expect(step.spanContext().traceId).toBe(request.spanContext().traceId)
  await registry.stop()
  await queue.close()
  await store.close()
})

it('an ingress event on the bus is stored with the trace that was active when it was published', async () => {
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus })
  const queue = new MemoryQueueAdapter()
  const registry = createWiringRegistry({ store, queue, stream: new MemoryStreamAdapter(), bus, flow: { flows: [{ id: 'f', steps: { pack: { subscribes: ['taken'], queue: 'pack' } } }] } })
  await registry.start()
  let active = ''
  queue.registerWorker('pack', 'pack', async () => {
    active = trace.getActiveSpan()!.spanContext().traceId
  })
  const traceId = await app.startActiveSpan('request', async (span) => {
    bus.publish({ type: 'flow.start', runId: 'r', flowName: 'f' })
    bus.publish({ type: 'emit', runId: 'r', flowName: 'f', data: { name: 'taken' } })
    span.end()
    return span.spanContext().traceId
  })
  await until('the step has run', () => active !== '')
  expect(active).toBe(traceId)
  await queue.close()
  await registry.stop()
  await store.close()
})

it('a trace goes on in the next process, on one file store', async () => {
  const first = await run('trace-process.mjs', 'start', folder)
  expect(first.stderr).toBe('')
  const second = await run('trace-process.mjs', 'work', folder)
  expect(second.stderr).toBe('')
  const before: Array<{ name: string, trace: string, id: string }> = JSON.parse(first.stdout)
  const after: Array<{ name: string, trace: string, parent: string }> = JSON.parse(second.stdout).filter(({ name }: { name: string }) => /^(process|step) /.test(name))
  const root = before.find(span => span.name === 'start order')!
  expect(after.map(span => span.name)).toEqual(expect.arrayContaining(['process order.take', 'step order take', 'process order.pack', 'step order pack']))
  expect(new Set(after.map(span => span.trace))).toEqual(new Set([root.trace]))
  expect(after.find(span => span.name === 'process order.take')!.parent).toBe(before.find(span => span.name === 'append')!.id)
})

it('a delivery of a webhook continues the trace of its event, up to the receiver', async () => {
  setDelays([1])
  const receiver = await Receiver.start()
  const answers = [500, 200]
  receiver.respond = ({ answer }) => void answer.writeHead(answers.shift()!).end()
  const store = new MemoryStoreAdapter({ bus: createEventBus() })
  const queue = new MemoryQueueAdapter()
  const webhooks = createWebhookWiring({ store, queue, webhooks: [{ name: 'hook', types: '*', url: receiver.url, allowPrivate: true }] })
  await webhooks.start()
  await inRoot(() => store.append('s', { type: 'order.paid' }))
  await until('it is delivered', () => spans('POST hook').length === 2)
  const posts = spans('POST hook')
  expect(receiver.requests.map(({ headers }) => headers['traceparent'])).toEqual(posts.map(idOf))
  expect(new Set(posts.map(span => span.spanContext().traceId))).toEqual(new Set(spans('request').map(span => span.spanContext().traceId)))
  expect(posts.map(({ kind, status, attributes }) => [kind, status.code, attributes['http.response.status_code']])).toEqual([
    [SpanKind.CLIENT, SpanStatusCode.ERROR, 500], [SpanKind.CLIENT, SpanStatusCode.UNSET, 200],
  ])
  await webhooks.stop()
  await queue.close()
  await store.close()
  await receiver.stop()
  setDelays(undefined)
})

it('where the API is not installed nothing fails, also where something has registered a provider', async () => {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const home = join(folder, 'bare')
  const installed = join(home, 'node_modules/nvent-native')
  await mkdir(installed, { recursive: true })
  await cp(join(root, 'dist'), join(installed, 'dist'), { recursive: true })
  await cp(join(root, 'package.json'), join(installed, 'package.json'))
  for (const file of await readdir(root)) if (file.endsWith('.node')) await cp(join(root, file), join(installed, file))
  const script = `
    globalThis[Symbol.for('opentelemetry.js.api.1')] = { version: '1.9.0', trace: { getTracer() { throw new Error('not through the API') } } }
    const store = new MemoryStoreAdapter({ bus: null })
    const stream = new MemoryStreamAdapter()
    await stream.publish('t', { type: 'x', data: 1 })
    console.log(JSON.stringify(await store.append('s', { type: 'x' })))
  `
  await writeFile(join(home, 'esm.mjs'), `import { MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'\n${script}`)
  await writeFile(join(home, 'commonjs.cjs'), `const { MemoryStoreAdapter, MemoryStreamAdapter } = require('nvent-native'); (async () => {${script}})()`)
  for (const file of ['esm.mjs', 'commonjs.cjs']) {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { cwd: home, env: { ...process.env, NODE_DEBUG: 'nvent' } })
    expect(JSON.parse(stdout)).not.toHaveProperty('traceparent')
    expect(stderr).toMatch(/a tracer provider is registered, but @opentelemetry\/api cannot be loaded/)
  }
})
