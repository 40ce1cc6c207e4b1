import { expect, it } from 'vitest'
import type { EventRecord } from 'nvent-native'
import { rejects, until } from '../support/until'
import type { StoreContext } from './store'

/** Takes so many values of an iterator. */
async function take<T>(iterator: AsyncIterator<T, void, void>, count: number): Promise<T[]> {
  const values: T[] = []
  while (values.length < count) {
    const { done, value } = await iterator.next()
    if (done) break
    values.push(value as T)
  }
  return values
}

const numbers = (events: EventRecord[]): unknown[] => events.map(event => event.data)

export function iteration(context: StoreContext): void {
  it('iterates over what is appended to a subject from the call on, of the types asked for, whatever its name', async () => {
    const { store } = context
    const subject = 'order[1]*'
    await store.append(subject, { type: 'a', data: 'before' })
    const events = store.stream.iterate(subject)
    const some = store.stream.iterate(subject, { types: ['b'] })
    for (const [type, data] of [['a', 1], ['b', 2], ['a', 3], ['b', 4]] as const) await store.append(subject, { type, data })
    await store.append('order1x', { type: 'a', data: 'another subject' })
    expect(numbers(await take(events, 4))).toEqual([1, 2, 3, 4])
    expect(numbers(await take(some, 2))).toEqual([2, 4])
    const next = events.next()
    const { id } = await store.append(subject, { type: 'a', data: 5 })
    expect(await next).toMatchObject({ done: false, value: { id, data: 5 } })
    await Promise.all([events.return!(), some.return!()])
  })

  it('loses nothing to a slow loop, and goes on after an id', async () => {
    const { store } = context
    const total = 600
    const seen: EventRecord[] = []
    await store.append('s', { type: 'a', data: 0 })
    for await (const event of store.stream.iterate('s', { after: '0-0' })) {
      // More than a page, appended while the loop is busy with the first event.
      if (seen.push(event) === 1) await Promise.all(Array.from({ length: total - 1 }, (_, n) => store.append('s', { type: 'a', data: n + 1 })))
      if (seen.length === total) break
    }
    expect(numbers(seen)).toEqual(Array.from({ length: total }, (_, n) => n))
    expect(numbers(await take(store.stream.iterate('s', { after: seen[total - 3]!.id }), 2))).toEqual([total - 2, total - 1])
  })

  it('iterates over the feed, from its beginning or after a position, and waits for more', async () => {
    const { store } = context
    for (let n = 0; n < 4; n++) await store.append(`s${n % 2}`, { type: n < 2 ? 'a' : 'b', data: n })
    const feed = store.feed.iterate()
    const first = await take(feed, 4)
    expect(first.map(entry => [entry.subject, entry.event.data])).toEqual([['s0', 0], ['s1', 1], ['s0', 2], ['s1', 3]])
    const some = store.feed.iterate({ subjects: ['s1', 'x*'], types: 'b', after: first[1]!.position })
    expect((await some.next()).value).toEqual(first[3])
    const [next, wanted] = [feed.next(), some.next()]
    await store.append('s0', { type: 'b', data: 4 })
    expect((await next).value).toMatchObject({ subject: 's0', event: { data: 4 } })
    for (let n = 0; n < 300; n++) void store.append('s1', { type: 'a', data: 'unwanted' })
    await store.append('x1', { type: 'b', data: 5 })
    expect((await wanted).value).toMatchObject({ subject: 'x1', event: { data: 5 } })
    await Promise.all([feed.return!(), some.return!()])
  })

  it('ends with an AbortError when the signal is aborted, while it waits or before', async () => {
    const { store } = context
    const controller = new AbortController()
    const feed = store.feed.iterate({ signal: controller.signal })
    const events = store.stream.iterate('s', { signal: controller.signal })
    const [next, other] = [feed.next(), events.next()]
    controller.abort('enough')
    await Promise.all([next, other].map(waiting => expect(waiting).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' })))
    expect(await feed.next()).toEqual({ done: true, value: undefined })
    await expect(store.stream.iterate('s', { signal: controller.signal }).next()).rejects.toMatchObject({ name: 'AbortError' })
  })

  it('leaves no subscription behind, however the loop is left', async () => {
    const { store } = context
    const subscriptions = (): number => Number(store.stats()['subscriptions'] ?? 0)
    await store.append('s', { type: 'a' })
    const before = subscriptions()
    for await (const _ of store.feed.iterate()) break
    await expect((async () => {
      for await (const _ of store.stream.iterate('s', { after: '0-0' })) throw new Error('of the body')
    })()).rejects.toThrow('of the body')
    {
      await using feed = store.feed.iterate()
      await feed.next()
    }
    const waiting = store.stream.iterate('s')
    const next = waiting.next()
    await waiting.return!()
    expect(await next).toEqual({ done: true, value: undefined })
    const controller = new AbortController()
    const aborted = store.feed.iterate({ signal: controller.signal })
    await aborted.next()
    controller.abort()
    await until('the subscription of the aborted loop is gone', () => subscriptions() === before)
  })

  it('ends when the store is closed, and refuses what it cannot do', async () => {
    const { another } = context
    const store = another()
    await store.append('s', { type: 'a' })
    const feed = store.feed.iterate()
    await feed.next()
    const waiting = [feed.next(), store.stream.iterate('s').next()]
    await store.close()
    for (const next of waiting) expect(await next).toEqual({ done: true, value: undefined })
    await rejects(store.feed.iterate().next(), 'NVENT_CLOSED')
    // What fails after the end is no error of the loop.
    const controller = new AbortController()
    const ended = store.feed.iterate({ signal: controller.signal }).next()
    controller.abort()
    await expect(ended).rejects.toMatchObject({ name: 'AbortError' })
    await rejects(() => context.store.stream.iterate('s', { limit: 1 } as object), 'NVENT_INVALID', /options\.limit/)
    await rejects(() => context.store.feed.iterate({ signal: {} as AbortSignal }), 'NVENT_INVALID', /options\.signal/)
    await rejects(context.store.feed.iterate({ after: 'no position' }).next(), 'NVENT_INVALID')
    await rejects(context.store.stream.iterate('').next(), 'NVENT_INVALID', /subject/)
  })
}
