import { createEventBus, getEventBus, MemoryStoreAdapter } from 'nvent-native'
import type { EventBus } from 'nvent-native'
import { beforeEach, expect, it } from 'vitest'
import { nextWarning, rejects } from './support/until'

let bus: EventBus
beforeEach(() => { bus = createEventBus() })

it('calls handlers before publish returns, with the event itself', () => {
  const heard: unknown[] = []
  bus.onType('a', event => heard.push(event))
  const event = { type: 'a', data: { n: 1 } }
  bus.publish(event)
  expect(heard).toEqual([event])
  expect(heard[0]).toBe(event)
})

it('calls handlers of the type, of the run and of everything, in order of registration', () => {
  const heard: string[] = []
  bus.onType('*', () => heard.push('all 1'))
  bus.subscribeRunId('r', () => heard.push('run'))
  bus.onType('a', () => heard.push('type'))
  bus.onType('*', () => heard.push('all 2'))
  bus.onType('b', () => heard.push('other type'))
  bus.subscribeRunId('s', () => heard.push('other run'))
  bus.publish({ type: 'a', runId: 'r' })
  expect(heard).toEqual(['all 1', 'run', 'type', 'all 2'])
  heard.length = 0
  bus.publish({ type: 'c' })
  expect(heard).toEqual(['all 1', 'all 2'])
})

it('takes types as they are spelt, not as patterns', () => {
  const heard: string[] = []
  bus.onType('flow.*', event => heard.push(event.type))
  bus.onType('constructor', event => heard.push(event.type))
  bus.publish({ type: 'flow.start' })
  bus.publish({ type: 'constructor' })
  expect(heard).toEqual(['constructor'])
})

it('goes on after a handler that throws, and after one that rejects, and tells the first through a warning', async () => {
  const warning = nextWarning()
  const heard: string[] = []
  bus.onType('a', () => { throw new Error('on purpose') })
  bus.onType('a', async () => { throw new Error('on purpose too') })
  bus.onType('a', event => heard.push(event.type))
  bus.publish({ type: 'a' })
  bus.publish({ type: 'a' })
  expect(heard).toEqual(['a', 'a'])
  expect((await warning).message).toContain('bus')
})

it('calls no handler after it was taken off, and taking off twice does nothing', () => {
  const heard: string[] = []
  const handler = (): unknown => heard.push('x')
  const [first, second, run] = [bus.onType('a', handler), bus.onType('a', handler), bus.subscribeRunId('r', handler)]
  first()
  first()
  bus.publish({ type: 'a', runId: 'r' })
  expect(heard).toHaveLength(2)
  second()
  run()
  bus.publish({ type: 'a', runId: 'r' })
  expect(heard).toHaveLength(2)
})

it('lets handlers register and take off while they are called', () => {
  const heard: string[] = []
  const off = bus.onType('a', () => {
    heard.push('once')
    off()
    bus.onType('a', () => heard.push('later'))
  })
  bus.onType('a', () => heard.push('always'))
  bus.publish({ type: 'a' })
  expect(heard).toEqual(['once', 'always'])
  bus.publish({ type: 'a' })
  expect(heard).toEqual(['once', 'always', 'always', 'later'])
})

it('keeps the order of what is appended and what is published', async () => {
  const store = new MemoryStoreAdapter({ bus })
  const heard: string[] = []
  bus.onType('*', event => heard.push(event.type))
  const appends = []
  for (let n = 0; n < 20; n++) {
    appends.push(store.append('s', { type: `appended ${n}` }))
    bus.publish({ type: `published ${n}` })
  }
  await Promise.all(appends)
  expect(heard).toEqual(Array.from({ length: 20 }, (_, n) => [`appended ${n}`, `published ${n}`]).flat())
  await store.close()
})

it('has two buses know nothing of each other, and one that is everybody\'s', () => {
  const heard: string[] = []
  bus.onType('a', () => heard.push('a'))
  createEventBus().publish({ type: 'a' })
  getEventBus().publish({ type: 'a' })
  expect(heard).toEqual([])
  expect(getEventBus()).toBe(getEventBus())
})

it('refuses what is no event and no handler', async () => {
  for (const event of [undefined, null, 1, 'a', {}, { type: '' }, { type: 5 }] as any[]) await rejects(() => bus.publish(event), 'NVENT_INVALID', /event/)
  for (const handler of [undefined, null, {}] as any[]) {
    await rejects(() => bus.onType('a', handler), 'NVENT_INVALID', /handler/)
    await rejects(() => bus.subscribeRunId('a', handler), 'NVENT_INVALID', /handler/)
  }
  await rejects(() => bus.onType(5 as any, () => {}), 'NVENT_INVALID', /type/)
})
