import { expect, it } from 'vitest'
import { isStreamGap } from 'nvent-native'
import { gate, Inbox, rejects, until } from '../support/until'
import type { StreamContext } from './stream'

export function messages(context: StreamContext): void {
  it('iterates over what is published from the call on, filtered, in order', async () => {
    const { stream } = context
    const all = stream.messages('t')
    const some = stream.messages('t', { filter: 'wanted' })
    // On Redis they are there when a later subscription is.
    await (await stream.subscribe('other', () => {})).unsubscribe()
    for (let n = 0; n < 4; n++) await stream.publish('t', { type: n % 2 ? 'wanted' : 'other', data: n })
    const seen: unknown[] = []
    for await (const message of all) {
      seen.push(message.data)
      if (seen.length === 4) break
    }
    expect(seen).toEqual([0, 1, 2, 3])
    expect([(await some.next()).value, (await some.next()).value]).toMatchObject([{ data: 1 }, { data: 3 }])
    const next = some.next()
    await stream.publish('t', { type: 'wanted', data: 4 })
    expect((await next).value).toMatchObject({ data: 4 })
    await some.return!()
    expect(await stream.listTopics()).toEqual([])
  })

  it('is bounded as a subscription: what a slow loop has no room for is reported as a gap', async () => {
    const { stream } = context
    const total = 2_000
    const loop = stream.messages('t', { buffer: 10 })
    const counted = new Inbox()
    await stream.subscribe('t', counted.take)
    const { value: first } = await Promise.all([loop.next(), stream.publish('t', { type: 'a', data: 0 })]).then(([result]) => result)
    expect(first).toMatchObject({ data: 0 })
    // The loop's body is at work meanwhile.
    for (let n = 1; n < total; n++) {
      await stream.publish('t', { type: 'a', data: n })
      // What has arrived is taken in batches smaller than the buffer.
      if (n % 5 === 0) await counted.atLeast(n + 1)
    }
    await counted.atLeast(total)
    let received = 1, missed = 0, last = 0
    while (last < total - 1) {
      const { value: message } = await loop.next()
      if (isStreamGap(message!)) {
        expect(message.data.reason).toBe('overflow')
        missed += message.data.missed!
        continue
      }
      received += 1
      expect(message!.data).toBeGreaterThan(last)
      last = message!.data
    }
    expect(missed).toBeGreaterThan(0)
    expect(received + missed).toBe(total)
    await loop.return!()
  })

  it('in a group, gives back the message that a loop was left with where a group acknowledges', async () => {
    const { another, capabilities } = context
    const stream = another({ retain: 100 })
    const [taken, again] = [new Inbox(), new Inbox()]
    const { opened, open } = gate()
    const body = (async () => {
      for await (const message of stream.messages('g', { group: 'workers' })) {
        taken.take(message.data)
        if (message.data === 2) {
          await opened
          throw new Error('of the body')
        }
      }
    })()
    await until('the loop is subscribed', async () => {
      await stream.publish('g', { type: 'a', data: 1 })
      return taken.items.length > 0
    })
    await stream.publish('g', { type: 'a', data: 2 })
    await until('the last one is at work', () => taken.items.includes(2))
    await stream.subscribe('g', message => again.take(message.data), { group: 'workers' })
    open()
    await expect(body).rejects.toThrow('of the body')
    await stream.publish('g', { type: 'a', data: 3 })
    const expected = capabilities.groupAcknowledges ? [2, 3] : [3]
    expect([...await again.atLeast(expected.length)].sort()).toEqual(expected)
    expect(stream.stats()['handlerErrors']).toBe(0)
  })

  it('ends with an AbortError when the signal is aborted, and when the stream is shut down', async () => {
    const { stream } = context
    const controller = new AbortController()
    const aborted = stream.messages('t', { signal: controller.signal }).next()
    await until('it is subscribed', async () => await stream.getSubscriptionCount('t') === 1)
    controller.abort()
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' })
    await until('it is unsubscribed', async () => await stream.getSubscriptionCount('t') === 0)
    const waiting = stream.messages('t').next()
    await stream.shutdown()
    expect(await waiting).toEqual({ done: true, value: undefined })
    await rejects(stream.messages('t').next(), 'NVENT_CLOSED')
    await rejects(() => stream.messages('t', { buffers: 1 } as object), 'NVENT_INVALID', /options\.buffers/)
  })
}
