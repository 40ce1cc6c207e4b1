import { describe, expect, it } from 'vitest'
import type { StreamAdapter, StreamEvent } from 'nvent-native'
import { gate, Inbox, nextWarning, rejects, until } from '../support/until'
import { noJson, noNames, noObjects, odd, throughJson } from '../support/values'
import type { StreamContext } from './stream'

export const send = async (stream: StreamAdapter, topic: string, count: number, type = 'x'): Promise<void> => {
  await Promise.all(Array.from({ length: count }, (_, n) => stream.publish(topic, { type, data: n })))
}
export const data = (events: StreamEvent[]): any[] => events.map(event => event.data)

export function delivery(context: StreamContext): void {
  it('delivers the whole event, with the topic', async () => {
    const { stream } = context
    const calls = new Inbox<unknown[]>()
    const handle = await stream.subscribe('orders', (...args) => calls.take(args))
    expect(handle).toEqual({ id: expect.any(String), topic: 'orders', unsubscribe: expect.any(Function) })
    const event = { type: 'order.paid', data: { z: 1, a: [null] }, metadata: { instanceId: 'i' }, timestamp: 5, more: { b: '' } }
    await stream.publish('orders', event)
    expect(await calls.atLeast(1)).toEqual([[event, 'orders']])
  })

  it('passes on any object whole, without type and data too', async () => {
    const { stream } = context
    const inbox = new Inbox()
    await stream.subscribe('t', inbox.take)
    const events = [{ id: '1', metadata: { a: 1 } }, {}, { type: 5 }, { type: null, data: undefined }, { type: '' }] as any[]
    for (const event of events) await stream.publish('t', event)
    expect(await inbox.atLeast(5)).toEqual(events.map(throughJson))
  })

  it('gives each handler a copy of its own', async () => {
    const { stream } = context
    const [first, second] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', (event) => {
      event.data.list.push('changed')
      first.take(event)
    })
    await stream.subscribe('t', second.take)
    await stream.publish('t', { type: 'x', data: { list: [] } })
    await first.atLeast(1)
    expect((await second.atLeast(1))[0].data.list).toEqual([])
  })

  it('keeps the order of the publishes for every subscriber, without an await between them', async () => {
    const { stream } = context
    const [exact, glob] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', exact.take)
    await stream.subscribe('t*', glob.take)
    await send(stream, 't', 1_000)
    const expected = Array.from({ length: 1_000 }, (_, n) => n)
    expect(data(await exact.atLeast(1_000))).toEqual(expected)
    expect(data(await glob.atLeast(1_000))).toEqual(expected)
  })

  it('calls an asynchronous handler one event at a time, in order', async () => {
    const { stream } = context
    const done = new Inbox()
    let running = 0
    await stream.subscribe('t', async (event) => {
      running += 1
      expect(running).toBe(1)
      await new Promise<void>(resolve => setTimeout(resolve, event.data % 2))
      running -= 1
      done.take(event)
    })
    await send(stream, 't', 20)
    expect(data(await done.atLeast(20))).toEqual(Array.from({ length: 20 }, (_, n) => n))
    expect(context.stream.stats().handlerErrors).toBe(0)
  })

  it('has no subscriber wait for another', async () => {
    const { stream } = context
    const { opened, open } = gate()
    const [slow, fast] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', async (event) => {
      await opened
      slow.take(event)
    })
    await stream.subscribe('t', fast.take)
    await send(stream, 't', 5)
    await fast.atLeast(5)
    expect(slow.items).toEqual([])
    open()
    await slow.atLeast(5)
  })

  it.each([
    ['store-sync:append:*', ['store-sync:append:nq:flow:abc', 'store-sync:append:'], ['store-sync:appendix', 'x:store-sync:append:a']],
    ['*', ['a', 'a:b'], []],
    ['h?llo', ['hello', 'hxllo'], ['hllo', 'heello']],
    ['h[ae]llo', ['hello', 'hallo'], ['hillo']],
    ['h[^e]llo', ['hallo'], ['hello']],
    ['h[a-c]llo', ['hbllo'], ['hdllo']],
    ['a\\*b', ['a*b'], ['axb']],
    ['*:flow:*:end', ['nq:flow:a:b:end'], ['nq:flow:end']],
    ['flow:event:abc', ['flow:event:abc'], ['flow:event:abcd', 'flow:event:ab']],
  ])('%s matches what it matches in Redis', async (pattern, matching, others) => {
    const { stream } = context
    const [inbox, all] = [new Inbox<string>(), new Inbox<string>()]
    await stream.subscribe(pattern, (_event, topic) => inbox.take(topic))
    await stream.subscribe('*', (_event, topic) => all.take(topic))
    for (const topic of [...matching, ...others]) await stream.publish(topic, { type: 'x', data: null })
    await all.atLeast(matching.length + others.length)
    expect((await inbox.atLeast(matching.length)).sort()).toEqual([...matching].sort())
  })

  it('delivers nothing published before the subscription', async () => {
    const { stream } = context
    await send(stream, 't', 3, 'before')
    const inbox = new Inbox()
    await stream.subscribe('t', inbox.take)
    await stream.publish('t', { type: 'after', data: 1 })
    expect((await inbox.atLeast(1)).map(event => event.type)).toEqual(['after'])
  })

  it('resolves a publish without subscribers', async () => {
    await context.stream.publish('unheeded', { type: 'x', data: 1 })
    expect(context.stream.stats()).toMatchObject({ published: 1, delivered: 0 })
  })

  it('reaches the adapters that it says it reaches', async () => {
    const { stream, another, capabilities } = context
    const [own, other] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', own.take)
    await another().subscribe('t', other.take)
    await send(stream, 't', 2)
    await own.atLeast(2)
    if (capabilities.shared) await other.atLeast(2)
    else expect(other.items).toEqual([])
  })

  it('counts handlers that throw or reject, reports the first through a warning, and fails no publish', async () => {
    const { stream } = context
    const warning = nextWarning()
    const fine = new Inbox()
    await stream.subscribe('t', () => { throw new Error('thrown on purpose') })
    await stream.subscribe('t', async () => { throw new TypeError('rejected on purpose') })
    await stream.subscribe('t', fine.take)
    await send(stream, 't', 3)
    const reported = await warning
    expect(reported.message).toContain(`${context.capabilities.backend} stream`)
    expect(reported.detail).toContain('on purpose')
    let more = 0
    const count = (other: any): unknown => String(other.code).startsWith('NVENT_') && more++
    process.on('warning', count)
    await until('all failures counted', () => stream.stats().handlerErrors === 6)
    process.off('warning', count)
    expect(more).toBe(0)
    expect(data(await fine.atLeast(3))).toEqual([0, 1, 2])
  })

  it('lets a handler subscribe, publish and unsubscribe', async () => {
    const { stream } = context
    const replies = new Inbox()
    const handle = await stream.subscribe('ask', async () => {
      const reply = await stream.subscribe('reply', replies.take)
      await stream.publish('reply', { type: 'answer', data: 42 })
      await until('the reply', () => replies.items.length === 1)
      await reply.unsubscribe()
      await handle.unsubscribe()
    })
    await send(stream, 'ask', 1)
    await until('no subscription is left', async () => (await stream.listTopics()).length === 0)
    expect(data(replies.items)).toEqual([42])
  })

  describe('bad input', () => {
    it('refuses what is no topic', async () => {
      for (const name of noNames as any[]) {
        await rejects(context.stream.publish(name, { type: 'x', data: 1 }), 'NVENT_INVALID', /topic/)
        await rejects(context.stream.subscribe(name, () => {}), 'NVENT_INVALID', /topic/)
      }
    })

    it('refuses what is no event, and handlers that are no functions', async () => {
      for (const value of noObjects as any[]) await rejects(context.stream.publish('t', value), 'NVENT_INVALID', /event/)
      for (const handler of [undefined, null, {}, 'x'] as any[]) await rejects(context.stream.subscribe('t', handler), 'NVENT_INVALID', /handler/)
      expect(await context.stream.listTopics()).toEqual([])
    })

    it.each(noJson)('refuses %s with its path', async (_what, value, path) => {
      await rejects(context.stream.publish('t', { type: 'x', data: value }), 'NVENT_INVALID', new RegExp(`event${path && `.data${path}`}`.replaceAll(/[.[\]]/g, '\\$&')))
    })

    it.each(odd)('%s arrive as what JSON makes of them', async (_what, value) => {
      const inbox = new Inbox()
      await context.stream.subscribe('t', inbox.take)
      await context.stream.publish('t', { type: 'x', data: value })
      expect((await inbox.atLeast(1))[0].data).toEqual(throughJson(value))
      expect(({} as any).polluted).toBeUndefined()
    })
  })
}
