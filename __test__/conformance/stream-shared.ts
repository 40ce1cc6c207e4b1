import { expect, it } from 'vitest'
import type { StreamAdapter } from 'nvent-native'
import { gate, Inbox, rejects, until } from '../support/until'
import type { StreamContext } from './stream'
import { data, send } from './stream-delivery'

/** What a subscriber gets that is busy with its first event while `count` more come. */
export async function overflowing(stream: StreamAdapter, opts: Parameters<StreamAdapter['subscribe']>[2], count: number, expected: number): Promise<any[]> {
  const { opened, open } = gate()
  const inbox = new Inbox()
  await stream.subscribe('t', async (event) => {
    inbox.take(event)
    await opened
  }, opts)
  const arrived = new Inbox()
  await stream.subscribe('t', arrived.take)
  const { dropped } = stream.stats()
  await stream.publish('t', { type: 'x', data: 'first' })
  await inbox.atLeast(1)
  await send(stream, 't', count)
  await arrived.atLeast(count + 1)
  // What the other subscription has may not be here yet.
  await until('what is too much is dropped', () => stream.stats().dropped - dropped >= count - opts!.buffer!)
  open()
  await inbox.atLeast(expected)
  await stream.publish('t', { type: 'x', data: 'last' })
  await until('the last one', () => inbox.items.at(-1).data === 'last')
  return inbox.items.slice(0, -1).map(event => event.type === 'stream.gap' ? event : event.data)
}

/** Subscriptions that share frozen objects. */
export function shared(context: StreamContext): void {
  const isFrozen = (value: unknown): boolean =>
    typeof value !== 'object' || value === null || (Object.isFrozen(value) && Object.values(value).every(isFrozen))

  it('leaves nothing behind of a subscription with shared that is refused', async () => {
    const { stream } = context
    const refused = [1, 2].map(() => stream.subscribe('t'.repeat(1_000_000), () => {}, { shared: true }))
    for (const subscription of refused) await rejects(subscription, 'NVENT_INVALID')
    expect(stream.stats().subscriptions).toBe(0)
  })

  it('gives one frozen object to all with shared, and others their own', async () => {
    const { stream } = context
    const [first, second, filtered, own] = [new Inbox(), new Inbox(), new Inbox(), new Inbox()]
    await stream.subscribe('t:*', first.take, { shared: true })
    await stream.subscribe('t:*', second.take, { shared: true })
    await stream.subscribe('t:*', filtered.take, { shared: true, filter: 'y' })
    await stream.subscribe('t:*', (event) => {
      event.data.list.push('changed')
      own.take(event)
    })
    const event = { type: 'x', data: { list: [{ a: 1 }], none: null }, more: { b: [] } }
    await stream.publish('t:1', event)
    await until('all have it', () => [first, second, own].every(inbox => inbox.items.length === 1))
    expect(first.items[0]).toEqual(event)
    expect(second.items[0]).toBe(first.items[0])
    expect(isFrozen(first.items[0])).toBe(true)
    expect(own.items[0].data.list).toEqual([{ a: 1 }, 'changed'])
    expect(filtered.items).toEqual([])
    expect(stream.stats().delivered).toBe(3)
  })

  it('counts each, and ends with the last', async () => {
    const { stream } = context
    const inboxes = [new Inbox(), new Inbox(), new Inbox()]
    const handles = await Promise.all(inboxes.map(inbox => stream.subscribe('t', inbox.take, { shared: true })))
    expect(new Set(handles.map(({ id }) => id)).size).toBe(3)
    expect(await stream.getSubscriptionCount('t')).toBe(3)
    expect(await stream.listTopics()).toEqual(['t'])
    await handles[0]!.unsubscribe()
    await stream.unsubscribe(handles[1]!)
    await handles[1]!.unsubscribe()
    await send(stream, 't', 2)
    await inboxes[2]!.atLeast(2)
    expect(inboxes.map(({ items }) => items.length)).toEqual([0, 0, 2])
    await handles[2]!.unsubscribe()
    expect(await stream.getSubscriptionCount('t')).toBe(0)
    expect(await stream.listTopics()).toEqual([])
    const again = new Inbox()
    await stream.subscribe('t', again.take, { shared: true })
    await send(stream, 't', 3)
    expect(data(await again.atLeast(3))).toEqual([0, 1, 2])
    expect(inboxes[2]!.items).toHaveLength(2)
  })

  it('calls no handler that another one has unsubscribed, and one that a handler has added from the next message on', async () => {
    const { stream } = context
    const [ended, added] = [new Inbox(), new Inbox()]
    let end = (): void => {}
    await stream.subscribe('t', ({ data }) => {
      end()
      if (data === 0) void stream.subscribe('t', added.take, { shared: true })
    }, { shared: true })
    const handle = await stream.subscribe('t', ended.take, { shared: true })
    end = () => void handle.unsubscribe()
    await stream.publish('t', { type: 'x', data: 0 })
    await until('it is added', async () => await stream.getSubscriptionCount('t') === 2)
    await stream.publish('t', { type: 'x', data: 1 })
    expect(data(await added.atLeast(1))).toEqual([1])
    expect(ended.items).toEqual([])
  })

  it('lets no slow or failing handler hold up others, and keeps the order of each', async () => {
    const { stream } = context
    const { opened, open } = gate()
    const [slow, quick] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', async (event) => {
      slow.take(event)
      await opened
    }, { shared: true })
    await stream.subscribe('t', () => {
      throw new Error('on purpose')
    }, { shared: true })
    await stream.subscribe('t', quick.take, { shared: true })
    await send(stream, 't', 20)
    expect(data(await quick.atLeast(20))).toEqual(data(quick.items.slice()).sort((a, b) => a - b))
    expect(slow.items).toHaveLength(1)
    expect(stream.stats()).toMatchObject({ waiting: 19, handlerErrors: 20 })
    open()
    expect(data(await slow.atLeast(20))).toEqual(data(quick.items))
  })

  it.each(['drop-oldest', 'drop-newest'] as const)('bounds what waits for a handler: %s', async (overflow) => {
    const items = await overflowing(context.stream, { buffer: 4, overflow, shared: true }, 10, 6)
    const gap = { type: 'stream.gap', data: { reason: 'overflow', topic: 't', missed: 6 }, timestamp: expect.any(Number) }
    expect(items).toEqual(['first', gap, ...overflow === 'drop-oldest' ? [6, 7, 8, 9] : [0, 1, 2, 3]])
    expect(context.stream.stats()).toMatchObject({ dropped: 6, gaps: 1 })
  })

  it('works with every other option, also where each has a native subscription of its own', async () => {
    const stream = context.another({ retain: 1_000 })
    await send(stream, 't', 3)
    const [replayed, member, blocking] = [new Inbox(), new Inbox(), new Inbox()]
    await stream.subscribe('t', replayed.take, { shared: true, fromBeginning: true })
    await stream.subscribe('t', member.take, { shared: true, group: 'g' })
    await stream.subscribe('t', blocking.take, { shared: true, overflow: 'block' })
    await replayed.atLeast(3)
    await stream.publish('t', { type: 'x', data: 3 })
    expect(data(await replayed.atLeast(4))).toEqual([0, 1, 2, 3])
    expect(data(await member.atLeast(1))).toEqual([3])
    expect(data(await blocking.atLeast(1))).toEqual([3])
    expect([replayed, member, blocking].flatMap(({ items }) => items).every(isFrozen)).toBe(true)
  })

  it('iterates over frozen messages', async () => {
    const { stream } = context
    const loop = stream.messages('t', { shared: true })
    let value: unknown
    const received = loop.next().then(next => value = next.value)
    // The loop may not be subscribed yet.
    await until('a message', async () => value ?? (await stream.publish('t', { type: 'x', data: { n: 1 } }), undefined))
    await received
    expect(isFrozen(value)).toBe(true)
    await loop.return!()
    expect(await stream.getSubscriptionCount('t')).toBe(0)
  })

  it('counts by topic, and what overflowed also when its subscriptions are gone', async () => {
    const { stream } = context
    const { opened, open } = gate()
    const [other, all] = [new Inbox(), new Inbox()]
    const busy = await stream.subscribe('t', () => opened, { shared: true, buffer: 1 })
    for (const { take } of [other, other]) await stream.subscribe('other', take, { shared: true })
    expect([await stream.getSubscriptionCount('t'), await stream.getSubscriptionCount('other'), stream.stats().subscriptions]).toEqual([1, 2, 3])
    await stream.subscribe('t', all.take)
    await send(stream, 't', 4)
    await all.atLeast(4)
    await until('two did not fit', () => stream.stats().dropped === 2)
    await busy.unsubscribe()
    expect(stream.stats().dropped).toBe(2)
    open()
  })

  it('ends with the stream', async () => {
    const stream = context.another()
    const inbox = new Inbox()
    const handle = await stream.subscribe('t', inbox.take, { shared: true })
    await stream.shutdown()
    await handle.unsubscribe()
    expect(inbox.items).toEqual([])
    await rejects(stream.subscribe('t', inbox.take, { shared: true }), 'NVENT_CLOSED')
  })
}
