/** Handlers and objects of applications that throw, return or resolve with values that cannot be looked at. */
import {
  createEventBus, createFlowWiring, createStreamCoordinator, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter, NventError,
} from 'nvent-native'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { until } from './support/until'

const thrower = (what: string) => () => { throw new Error(what) }
const hostile = new Proxy({}, { get: thrower('get'), getPrototypeOf: thrower('getPrototypeOf'), has: thrower('has'), ownKeys: thrower('ownKeys') })
const circular: any = { list: [] }
circular.list.push(circular)

const values: Array<[what: string, make: () => unknown]> = [
  ['an object without prototype', () => Object.create(null)],
  ['undefined', () => undefined],
  ['null', () => null],
  ['a symbol', () => Symbol('s')],
  ['a BigInt', () => 1n],
  ['a function', () => () => 1],
  ['a circular object', () => circular],
  ['a proxy whose traps throw', () => hostile],
  ['a revoked proxy', () => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return proxy }],
  ['an error whose message is a getter that throws', () => Object.defineProperty(new Error('x'), 'message', { get: thrower('message') })],
  ['an error whose stack is a getter that throws', () => Object.defineProperty(new Error('x'), 'stack', { get: thrower('stack') })],
  ['an error whose stack is no text', () => Object.assign(new Error('x'), { stack: Symbol('stack') })],
  ['an error whose message is no text', () => Object.assign(new Error('x'), { message: { toString: thrower('toString') } })],
  ['an object whose toString throws', () => ({ toString: thrower('toString') })],
  ['an object whose toJSON throws', () => ({ toJSON: thrower('toJSON') })],
]

const thenables: Array<[what: string, make: () => unknown]> = [
  ['a thenable whose then throws', () => ({ then: thrower('then') })],
  ['a thenable whose then throws an object without prototype', () => ({ then: () => { throw Object.create(null) } })],
  ['an object whose then is a getter that throws', () => ({ get then() { throw new Error('then getter') } })],
  ['a thenable that rejects with an object without prototype', () => ({ then: (_: unknown, reject: (e: unknown) => void) => reject(Object.create(null)) })],
  ['a promise rejected with a proxy whose traps throw', () => Promise.reject(hostile)],
  ['a function with a then that throws', () => Object.assign(() => 1, { then: thrower('then') })],
]

/** Behaviours of a handler, each of which is one failure. */
const failures: Array<[what: string, handler: () => any]> = [
  ...values.map(([what, make]): [string, () => any] => [`throws ${what}`, () => { throw make() }]),
  ...values.map(([what, make]): [string, () => any] => [`rejects with ${what}`, async () => { throw make() }]),
  ...thenables.map(([what, make]): [string, () => any] => [`returns ${what}`, make]),
]
/** Behaviours of a handler that are fine. */
const fine = values.map(([what, make]): [string, () => any] => [`returns ${what}`, make])
// A promise cannot resolve with a value whose `then` cannot be read: that rejects.
const settles = fine.filter(([what]) => !what.includes('proxy'))

const warnings: Error[] = []
const uncaught: unknown[] = []
const onWarning = (warning: Error): void => void warnings.push(warning)
const onUncaught = (error: unknown): void => void uncaught.push(error)
beforeEach(() => {
  warnings.length = uncaught.length = 0
  process.on('warning', onWarning)
  process.on('uncaughtException', onUncaught)
  process.on('unhandledRejection', onUncaught)
})
afterEach(() => {
  process.off('warning', onWarning)
  process.off('uncaughtException', onUncaught)
  process.off('unhandledRejection', onUncaught)
  expect(uncaught).toEqual([])
})

describe.each([...failures, ...settles])('a handler that %s', (what, handler) => {
  const expected = failures.some(([name]) => name === what) ? 1 : 0

  it('of a stream goes on to get events, and so do its neighbours', async () => {
    const stream = new MemoryStreamAdapter()
    const seen: string[] = []
    await stream.subscribe('t', (event) => {
      seen.push(`bad ${event.data}`)
      return event.data === 1 ? handler() : undefined
    })
    await stream.subscribe('t', event => void seen.push(`good ${event.data}`))
    await stream.publish('t', { type: 'a', data: 1 })
    await stream.publish('t', { type: 'a', data: 2 })
    await until('it happens', () => seen.length === 4)
    expect(stream.stats().handlerErrors).toBe(expected)
    await stream.shutdown()
  })

  it('of a store subscription goes on to get events', async () => {
    const store = new MemoryStoreAdapter({ bus: null })
    const seen: number[] = []
    await store.subscribe('s', (event) => {
      seen.push(event['n'])
      return event['n'] === 1 ? handler() : undefined
    })
    await store.append('s', { type: 'a', n: 1 })
    await store.append('s', { type: 'a', n: 2 })
    await until('it happens', () => seen.length === 2)
    expect(store.stats()['handlerErrors']).toBe(expected)
    await store.close()
  })

  it('of a bus does not keep the next handler from running', async () => {
    const bus = createEventBus()
    const seen: string[] = []
    bus.onType('a', handler)
    bus.onType('a', () => void seen.push('next'))
    bus.onType('*', () => void seen.push('all'))
    bus.publish({ type: 'a' })
    bus.publish({ type: 'a' })
    expect(seen).toEqual(['next', 'all', 'next', 'all'])
    const store = new MemoryStoreAdapter({ bus })
    await store.append('s', { type: 'a' })
    expect(seen).toHaveLength(6)
    await store.close()
  })
})

it.each(failures)('a job whose handler %s fails, and the next one runs', async (_, handler) => {
  const queue = new MemoryQueueAdapter()
  const ended: string[] = []
  queue.on('q', 'failed', ({ jobId }) => void ended.push(`failed ${jobId}`))
  queue.on('q', 'completed', ({ jobId }) => void ended.push(`completed ${jobId}`))
  queue.registerWorker('q', 'j', async job => job.id === 'a' ? handler() : 1)
  queue.startProcessingQueue('q')
  await queue.enqueue('q', { name: 'j', data: 1, opts: { jobId: 'a' } })
  await queue.enqueue('q', { name: 'j', data: 1, opts: { jobId: 'b' } })
  await until('it happens', () => ended.length === 2)
  expect(ended).toEqual(['failed a', 'completed b'])
  await queue.close()
})

describe('an application\'s own stream', () => {
  const publishing = async (publish: (topic: string, event: any) => any) => {
    const bus = createEventBus()
    const calls: any[] = []
    const stream: any = { publish: (topic: string, event: any) => { calls.push(event); return publish(topic, event) } }
    const coordinator = createStreamCoordinator({ bus, stream, enableFlowEvents: false })
    await coordinator.start()
    const store = new MemoryStoreAdapter({ bus })
    await store.append('s', { type: 'a' })
    await until('it happens', () => calls.length > 0)
    await coordinator.stop()
    await store.close()
    return { calls, stats: coordinator.stats() }
  }

  it.each(settles)('whose publish %s has published once', async (_, make) => {
    const { calls, stats } = await publishing(async () => make())
    expect({ calls: calls.length, failed: stats.failed, routed: stats.routed['store-sync'] }).toEqual({ calls: 1, failed: 0, routed: 1 })
  })

  it.each([
    ['a TypeError', () => new TypeError('x is not a function')],
    ['NVENT_INVALID', () => new NventError('NVENT_INVALID', 'not usable')],
    ['NVENT_CLOSED', () => new NventError('NVENT_CLOSED', 'closed')],
  ])('that rejects with %s is not called again', async (_, make) => {
    const { calls, stats } = await publishing(async () => { throw make() })
    expect({ calls: calls.length, failed: stats.failed }).toEqual({ calls: 1, failed: 1 })
  })

  it.each(values)('that rejects with %s is answered', async (_, make) => {
    let failed = false
    const { calls } = await publishing(async () => {
      if (failed) return
      failed = true
      throw make()
    })
    expect(calls).toHaveLength(2)
  })
})

it.each(settles)('an application\'s own store whose indexAdd %s, and queue that keeps it to itself, run a flow', async (_, make) => {
  const bus = createEventBus()
  const inner = new MemoryStoreAdapter({ bus: null })
  const store: any = {
    append: (subject: string, event: any) => inner.append(subject, event),
    read: (subject: string, opts: any) => inner.read(subject, opts),
    indexAdd: async (...args: [any, any, any, any]) => { await inner.indexAdd(...args); return make() },
    indexUpdate: (...args: [any, any, any]) => inner.indexUpdate(...args),
    indexRead: (...args: [any, any]) => inner.indexRead(...args),
  }
  const wiring = createFlowWiring({ bus, store, flows: [{ id: 'f', entry: { step: 's' }, steps: {} }] })
  await wiring.start()
  bus.publish({ type: 'flow.start', runId: 'r', flowName: 'f' })
  await until('it happens', async () => (await inner.read('nq:flow:r')).length === 1 && (await inner.indexRead('nq:flows:f')).length === 1)
  await wiring.stop()
  expect(wiring.stats().errors).toBe(0)
  await inner.close()
})
