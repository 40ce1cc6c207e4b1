import { expect, it } from 'vitest'
import { gate, Inbox, rejects } from '../support/until'
import type { StreamContext } from './stream'
import { send } from './stream-delivery'

export function lifecycle(context: StreamContext): void {
  it('calls no handler after its unsubscribe resolved, taken off the handle or not', async () => {
    const { stream } = context
    const [a, b, stays] = [new Inbox(), new Inbox(), new Inbox()]
    const first = await stream.subscribe('t', a.take)
    const { unsubscribe } = await stream.subscribe('t', b.take)
    await stream.subscribe('t', stays.take)
    await send(stream, 't', 1)
    await Promise.all([a.atLeast(1), b.atLeast(1)])
    await Promise.all([stream.unsubscribe(first), unsubscribe()])
    await Promise.all([stream.unsubscribe(first), unsubscribe(), first.unsubscribe()])
    await send(stream, 't', 20)
    await stays.atLeast(21)
    expect([a.items.length, b.items.length]).toEqual([1, 1])
  })

  it('drops what still waits for a busy handler that is unsubscribed', async () => {
    const { stream } = context
    const { opened, open } = gate()
    const [inbox, arrived] = [new Inbox(), new Inbox()]
    const handle = await stream.subscribe('t', async (event) => {
      inbox.take(event)
      await opened
    })
    await stream.subscribe('t', arrived.take)
    await send(stream, 't', 10)
    await Promise.all([inbox.atLeast(1), arrived.atLeast(10)])
    await handle.unsubscribe()
    open()
    await send(stream, 't', 1)
    await arrived.atLeast(11)
    expect(inbox.items).toHaveLength(1)
  })

  it('calls a handler that unsubscribes itself no more, although others have come with the same batch', async () => {
    const { stream } = context
    const [inbox, stays] = [new Inbox(), new Inbox()]
    const handle = await stream.subscribe('t', (event) => {
      inbox.take(event)
      void handle.unsubscribe()
    })
    await stream.subscribe('t', stays.take)
    await Promise.all(Array.from({ length: 20 }, (_, n) => stream.publish('t', { type: 'x', data: n })))
    await stays.atLeast(20)
    expect(inbox.items).toHaveLength(1)
  })

  it('refuses to unsubscribe what is no handle', async () => {
    for (const handle of [undefined, null, 'x', {}] as any[]) await rejects(context.stream.unsubscribe(handle), 'NVENT_INVALID', /handle/)
  })

  it('lists topics and patterns once, and counts handlers of exactly one', async () => {
    const { stream } = context
    const handles = [await stream.subscribe('a', () => {}), await stream.subscribe('a', () => {}), await stream.subscribe('a*', () => {})]
    expect((await stream.listTopics()).sort()).toEqual(['a', 'a*'])
    expect(await Promise.all(['a', 'a*', 'ab'].map(topic => stream.getSubscriptionCount(topic)))).toEqual([2, 1, 0])
    await handles[0]!.unsubscribe()
    expect(await stream.getSubscriptionCount('a')).toBe(1)
    await handles[1]!.unsubscribe()
    expect(await stream.listTopics()).toEqual(['a*'])
  })

  it('opens on first use, and init may be called twice', async () => {
    const { stream } = context
    await stream.publish('t', { type: 'x', data: 1 })
    await Promise.all([stream.init(), stream.init()])
    expect(await stream.health()).toMatchObject({ ok: true, backend: context.capabilities.backend })
  })

  it('counts what it published and delivered', async () => {
    const { stream } = context
    const inbox = new Inbox()
    await stream.subscribe('t', inbox.take)
    await send(stream, 't', 3)
    await inbox.atLeast(3)
    expect(stream.stats()).toMatchObject({ published: 3, delivered: 3, dropped: 0, gaps: 0, handlerErrors: 0, reconnects: 0 })
  })

  it('shuts down twice, and without having been used', async () => {
    const stream = context.another()
    await Promise.all([stream.shutdown(), stream.shutdown()])
    await stream.shutdown()
  })

  it('rejects after shutdown, calls no handler, and handles may still be let go', async () => {
    const { stream } = context
    const inbox = new Inbox()
    const handle = await stream.subscribe('t', inbox.take)
    await send(stream, 't', 1)
    await inbox.atLeast(1)
    await stream.shutdown()
    await rejects(stream.init(), 'NVENT_CLOSED')
    await rejects(stream.publish('t', { type: 'x', data: 1 }), 'NVENT_CLOSED')
    await rejects(stream.subscribe('t', () => {}), 'NVENT_CLOSED')
    await handle.unsubscribe()
    await stream.unsubscribe(handle)
    expect(await stream.health()).toMatchObject({ ok: false })
    expect(await stream.listTopics()).toEqual([])
    expect(await stream.getSubscriptionCount('t')).toBe(0)
    expect(stream.stats()).toMatchObject({ published: 1, delivered: 1 })
    expect(inbox.items).toHaveLength(1)
  })
}
