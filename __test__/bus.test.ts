import { createEventBus, getEventBus, MemoryStoreAdapter, metrics } from 'nvent-native'
import type { NativeEventBus } from 'nvent-native'
import { beforeEach, expect, it } from 'vitest'
import { nextWarning, rejects, until } from './support/until'

let bus: NativeEventBus
beforeEach(() => { bus = createEventBus() })

it('calls handlers before publish returns, with the event itself', () => {
  const received: unknown[] = []
  bus.onType('a', event => received.push(event))
  const event = { type: 'a', data: { n: 1 } }
  bus.publish(event)
  expect(received).toEqual([event])
  expect(received[0]).toBe(event)
})

it('calls handlers of the type, of the run and of everything, in order of registration', () => {
  const received: string[] = []
  bus.onType('*', () => received.push('all 1'))
  bus.subscribeRunId('r', () => received.push('run'))
  bus.onType('a', () => received.push('type'))
  bus.onType('*', () => received.push('all 2'))
  bus.onType('b', () => received.push('other type'))
  bus.subscribeRunId('s', () => received.push('other run'))
  bus.publish({ type: 'a', runId: 'r' })
  expect(received).toEqual(['all 1', 'run', 'type', 'all 2'])
  received.length = 0
  bus.publish({ type: 'c' })
  expect(received).toEqual(['all 1', 'all 2'])
})

it('takes types as they are spelt, not as patterns', () => {
  const received: string[] = []
  bus.onType('flow.*', event => received.push(event.type))
  bus.onType('constructor', event => received.push(event.type))
  bus.publish({ type: 'flow.start' })
  bus.publish({ type: 'constructor' })
  expect(received).toEqual(['constructor'])
})

it('goes on after a handler that throws, and after one that rejects, and warns about the first', async () => {
  const warning = nextWarning()
  const received: string[] = []
  bus.onType('a', () => { throw new Error('on purpose') })
  bus.onType('a', async () => { throw new Error('on purpose too') })
  bus.onType('a', event => received.push(event.type))
  bus.publish({ type: 'a' })
  bus.publish({ type: 'a' })
  expect(received).toEqual(['a', 'a'])
  expect((await warning).message).toContain('bus')
})

it('counts every failure, of handlers of stored events too', async () => {
  const store = new MemoryStoreAdapter({ bus })
  const exported = (): number => Number(/^nvent_bus_handler_errors_total (\d+)$/m.exec(metrics())?.[1] ?? 0)
  const before = exported()
  const off = bus.onType('a', () => { throw new Error('on purpose') })
  bus.onType('a', async () => { throw new Error('on purpose too') })
  expect(bus.stats()).toEqual({ published: 0, handlers: 2, handlerErrors: 0 })
  bus.publish({ type: 'a' })
  await store.append('s', { type: 'a' })
  await until('both of each', () => bus.stats().handlerErrors === 4)
  expect(exported() - before).toBe(4)
  off()
  bus.publish({ type: 'a' })
  await until('the one that is left', () => bus.stats().handlerErrors === 5)
  expect(bus.stats()).toEqual({ published: 2, handlers: 1, handlerErrors: 5 })
  await store.close()
})

it('calls no handler after it was taken off, and taking off twice does nothing', () => {
  const received: string[] = []
  const handler = (): unknown => received.push('x')
  const [first, second, run] = [bus.onType('a', handler), bus.onType('a', handler), bus.subscribeRunId('r', handler)]
  first()
  first()
  bus.publish({ type: 'a', runId: 'r' })
  expect(received).toHaveLength(2)
  second()
  run()
  bus.publish({ type: 'a', runId: 'r' })
  expect(received).toHaveLength(2)
})

it('passes on of what stores announce what there are handlers for at the time, by type, run or everything', async () => {
  const store = new MemoryStoreAdapter({ bus })
  const received: string[] = []
  const append = (n: number): Promise<unknown> => Promise.all([
    store.append('s', { type: 'a', runId: 'r', data: n }), store.append('s', { type: 'b', runId: 'r', data: n }), store.append('t', { type: 'a', runId: 'q', data: n }),
  ])
  const note = (name: string) => (event: any): unknown => received.push(`${name}:${event.type}${event.runId}${event.data}`)
  await append(0)
  const [first, second] = [bus.onType('a', note('type')), bus.onType('a', note('again'))]
  await append(1)
  first()
  await append(2)
  second()
  const offRun = bus.subscribeRunId('r', note('run'))
  await append(3)
  const offAll = bus.onType('*', note('all'))
  offRun()
  await append(4)
  offAll()
  await append(5)
  bus.onType('b', note('type'))
  await append(6)
  expect(received).toEqual([
    'type:ar1', 'again:ar1', 'type:aq1', 'again:aq1',
    'again:ar2', 'again:aq2',
    'run:ar3', 'run:br3',
    'all:ar4', 'all:br4', 'all:aq4',
    'type:br6',
  ])
  await store.close()
})

it('lets handlers register and take off while they are called', () => {
  const received: string[] = []
  const off = bus.onType('a', () => {
    received.push('once')
    off()
    bus.onType('a', () => received.push('later'))
  })
  bus.onType('a', () => received.push('always'))
  bus.publish({ type: 'a' })
  expect(received).toEqual(['once', 'always'])
  bus.publish({ type: 'a' })
  expect(received).toEqual(['once', 'always', 'always', 'later'])
})

it('keeps the order of what is appended and what is published', async () => {
  const store = new MemoryStoreAdapter({ bus })
  const received: string[] = []
  bus.onType('*', event => received.push(event.type))
  const appends = []
  for (let n = 0; n < 20; n++) {
    appends.push(store.append('s', { type: `appended ${n}` }))
    bus.publish({ type: `published ${n}` })
  }
  await Promise.all(appends)
  expect(received).toEqual(Array.from({ length: 20 }, (_, n) => [`appended ${n}`, `published ${n}`]).flat())
  await store.close()
})

it('has two buses know nothing of each other, and one that is everybody\'s', () => {
  const received: string[] = []
  bus.onType('a', () => received.push('a'))
  createEventBus().publish({ type: 'a' })
  getEventBus().publish({ type: 'a' })
  expect(received).toEqual([])
  expect(getEventBus()).toBe(getEventBus())
})

it('stores on one bus of the application announce each event there once, while any of them is open', async () => {
  const handlers = new Map<string, Array<(event: any) => void>>()
  const published: string[] = []
  const own = {
    publish: (event: any) => void published.push(event.type),
    onType: (type: string, handler: (event: any) => void) => {
      handlers.set(type, [...handlers.get(type) ?? [], handler])
      return () => void handlers.delete(type)
    },
  }
  const [first, second] = [new MemoryStoreAdapter({ bus: own as any }), new MemoryStoreAdapter({ bus: own as any })]
  await first.append('s', { type: 'a' })
  await second.append('s', { type: 'b' })
  await first.close()
  await second.append('s', { type: 'c' })
  await second.close()
  const third = new MemoryStoreAdapter({ bus: own as any })
  await third.append('s', { type: 'd' })
  await third.close()
  await until('the last', () => published.includes('d'))
  expect([published, handlers.size]).toEqual([['a', 'b', 'c', 'd'], 0])
})

it('refuses what is no event and no handler', async () => {
  for (const event of [undefined, null, 1, 'a', {}, { type: '' }, { type: 5 }] as any[]) await rejects(() => bus.publish(event), 'NVENT_INVALID', /event/)
  for (const handler of [undefined, null, {}] as any[]) {
    await rejects(() => bus.onType('a', handler), 'NVENT_INVALID', /handler/)
    await rejects(() => bus.subscribeRunId('a', handler), 'NVENT_INVALID', /handler/)
  }
  await rejects(() => bus.onType(5 as any, () => {}), 'NVENT_INVALID', /type/)
})
