import { expect, it } from 'vitest'
import type { ConsumerContext, EventRecord, StoreAdapter } from 'nvent-native'
import { gate, Inbox, rejects, until } from '../support/until'
import type { StoreContext } from './store'

const numbers = (store: StoreAdapter, from: number, to: number, subject = 's') =>
  Promise.all(Array.from({ length: to - from + 1 }, (_, n) => store.append(subject, { type: `t${(from + n) % 2}`, n: from + n })))

export function consumers(context: StoreContext): void {
  it('the feed has the events of all subjects in one order, and is read page by page', async () => {
    const { store } = context
    expect(await store.feed.head()).toBeNull()
    expect(await store.feed.read()).toEqual([])
    for (let n = 0; n < 6; n++) await store.append(`s${n % 2}`, { type: `t${n % 3}`, n })
    const all = await store.feed.read()
    expect(all.map(({ subject, event }) => [subject, event['n']])).toEqual([0, 1, 2, 3, 4, 5].map(n => [`s${n % 2}`, n]))
    expect(await store.feed.head()).toBe(all[5]!.position)
    expect(await store.feed.read({ after: all[1]!.position, limit: 2 })).toEqual(all.slice(2, 4))
    expect(await store.feed.read({ after: all[5]!.position })).toEqual([])
    expect((await store.feed.read({ subjects: 's1', types: ['t0', 't1'] })).map(({ event }) => event['n'])).toEqual([1, 3])
    expect(await store.feed.read({ subjects: ['none*'] })).toEqual([])
  })

  it('the feed refuses options that are not usable', async () => {
    const { store } = context
    await rejects(store.feed.read({ after: 'nowhere' }), 'NVENT_INVALID', /nowhere/)
    await rejects(store.feed.read({ limit: -1 }), 'NVENT_INVALID', /options\.limit/)
    await rejects(store.feed.read({ subject: 's' } as any), 'NVENT_INVALID', /did you mean "subjects"/)
    await rejects(store.feed.read({ types: [1] } as any), 'NVENT_INVALID', /options\.types\[0\]/)
  })

  it('a consumer is called with what is appended, in order, with where it was stored', async () => {
    const { store } = context
    await store.append('s', { type: 'before' })
    const inbox = new Inbox<[EventRecord, ConsumerContext]>()
    const consumer = await store.consume('c', (...args) => inbox.take(args))
    await numbers(store, 1, 300)
    const items = await inbox.atLeast(300)
    expect(items.map(([event]) => event['n'])).toEqual(Array.from({ length: 300 }, (_, n) => n + 1))
    expect(items[0]![1]).toMatchObject({ subject: 's', attempt: 1, position: expect.any(String), signal: expect.any(AbortSignal) })
    await until('the consumer has caught up', () => consumer.stats().lag === 0)
    expect(consumer.stats()).toEqual({ position: await store.feed.head(), lag: 0, delivered: 300, failed: 0, parked: 0, active: true })
    expect(await store.consumers()).toMatchObject([{ name: 'c', parked: 0 }])
    await consumer.stop()
    await consumer.stop()
  })

  it('a consumer goes on where it was stopped, with what its globs match', async () => {
    const { store } = context
    const first = new Inbox()
    const consumer = await store.consume('c', event => first.take(event['n']), { from: 'beginning', types: 't1', subjects: ['s*'] })
    await numbers(store, 1, 4)
    await first.atLeast(2)
    await consumer.stop()
    await numbers(store, 5, 8)
    const second = new Inbox()
    const again = await store.consume('c', event => second.take(event['n']), { from: 'beginning', types: 't1' })
    expect(await second.atLeast(2)).toEqual([5, 7])
    expect(first.items).toEqual([1, 3])
    await again[Symbol.asyncDispose]()
  })

  it('begins where its options say', async () => {
    const { store } = context
    await numbers(store, 1, 5)
    const { position } = (await store.feed.read({ limit: 2 }))[1]!
    const seen = new Inbox()
    const consumer = await store.consume('p', event => seen.take(event['n']), { from: { position } })
    expect(await seen.atLeast(3)).toEqual([3, 4, 5])
    await consumer.stop()
  })

  it('an event whose handler fails is delivered again, then parked and replayed', async () => {
    const { store } = context
    let failing = true
    const attempts: number[] = []
    const done = new Inbox()
    const consumer = await store.consume('c', async (event, { attempt }) => {
      if (event['n'] === 1 && failing) {
        attempts.push(attempt)
        throw attempt === 3 ? Object.create(null) : new Error('not yet')
      }
      done.take(event['n'])
    }, { attempts: 3, backoff: 0 })
    await numbers(store, 1, 2)
    await done.atLeast(1)
    expect(done.items).toEqual([2])
    expect(attempts).toEqual([1, 2, 3])
    const [parked] = await until('it is parked', async () => {
      const events = await consumer.parked()
      return events.length > 0 ? events : undefined
    })
    expect(parked).toMatchObject({ subject: 's', attempts: 3, event: { n: 1 }, reason: 'a value without a message was thrown', parkedAt: expect.any(Number) })
    expect(await consumer.parked({ after: parked!.position })).toEqual([])
    failing = false
    expect(await consumer.replay([parked!.position])).toBe(1)
    expect(done.items).toEqual([2, 1])
    expect(await consumer.replay()).toBe(0)
    expect(consumer.stats()).toMatchObject({ failed: 3, parked: 0 })
    await consumer.stop()
  })

  it('parked events are read and replayed through the store: at once by the consumer at work, or by the next one', async () => {
    const { store } = context
    let failing = true
    const done = new Inbox()
    const handler = (event: EventRecord): void => {
      if (failing) throw new Error('not yet')
      done.take(event['n'])
    }
    const consumer = await store.consume('c', handler, { attempts: 1 })
    await numbers(store, 1, 4)
    await until('all are parked', () => consumer.stats().parked === 4)
    const parked = await until('they are stored', async () => {
      const events = await store.parked('c')
      return events.length === 4 ? events : undefined
    })
    expect(parked[0]).toMatchObject({ subject: 's', attempts: 1, event: { n: 1 }, reason: 'not yet' })
    expect(await store.parked('c', { limit: 1, after: parked[0]!.position })).toEqual([parked[1]])
    expect(await store.parked('none')).toEqual([])
    await rejects(store.replay('none'), 'NVENT_NOT_FOUND', /none/)
    await rejects(store.replay('c', 'all' as any), 'NVENT_INVALID', /positions/)
    // Parked again: the request has been met.
    expect(await store.replay('c', [parked[0]!.position])).toBe(1)
    await until('it is parked again', async () => (await store.parked('c'))[0]!.attempts === 2)
    expect(done.items).toEqual([])
    failing = false
    expect(await store.replay('c', [parked[1]!.position])).toBe(1)
    expect(await done.atLeast(1)).toEqual([2])
    await until('it is stored', async () => (await store.parked('c')).length === 3)
    await consumer.stop()
    expect(await store.replay('c')).toBe(3)
    const next = await store.consume('c', handler)
    expect(await done.atLeast(4)).toEqual([2, 1, 3, 4])
    await until('nothing is parked', async () => (await store.parked('c')).length === 0)
    expect(await store.replay('c')).toBe(0)
    await next.stop()
  })

  it('handles as many subjects at a time as its options say, and each in order', async () => {
    const { store } = context
    let [now, most] = [0, 0]
    const seen: Record<string, number[]> = {}
    const consumer = await store.consume('c', async (event, { subject }) => {
      most = Math.max(most, ++now)
      await new Promise(resolve => setImmediate(resolve))
      ;(seen[subject] ??= []).push(event['n'])
      now -= 1
    }, { concurrency: 3 })
    for (let n = 0; n < 40; n++) await store.append(`s${n % 8}`, { type: 'a', n })
    await until('all are handled', () => Object.values(seen).flat().length === 40)
    expect(most).toBeLessThanOrEqual(3)
    for (const list of Object.values(seen)) expect(list).toEqual([...list].sort((a, b) => a - b))
    await consumer.stop()
  })

  it('stop, an aborted signal and close wait for the handler, whose own signal is aborted', async () => {
    for (const end of ['stop', 'abort', 'close'] as const) {
      const { store } = context
      const { opened, open } = gate()
      const started = new Inbox<AbortSignal>()
      const controller = new AbortController()
      const consumer = await store.consume(end, async (_, { signal }) => {
        started.take(signal)
        await opened
      }, { signal: controller.signal })
      await numbers(store, 1, 2)
      const [signal] = await started.atLeast(1)
      let ended = false
      if (end === 'abort') {
        // Without a call of `stop`.
        controller.abort()
        await until('the signal is aborted', () => signal!.aborted)
      }
      const ending = (end === 'close' ? store.close() : consumer.stop()).then(() => ended = true)
      await until('the signal is aborted', () => signal!.aborted)
      expect(ended).toBe(false)
      open()
      await ending
      expect(started.items).toHaveLength(1)
    }
  })

  it('a consumer whose signal is aborted while it starts is stopped, and its name is free', async () => {
    const { store } = context
    const controller = new AbortController()
    const received: unknown[] = []
    const starting = store.consume('c', event => void received.push(event['n']), { signal: controller.signal })
    controller.abort(new Error('changed my mind'))
    await expect(starting).rejects.toThrow('changed my mind')
    await numbers(store, 1, 2)
    const second = new Inbox()
    const again = await store.consume('c', event => second.take(event['n']), { from: 'beginning' })
    await second.atLeast(2)
    expect(received).toEqual([])
    await again.stop()
  })

  it('a consumer is not started with an aborted signal, nor after close', async () => {
    const { store } = context
    await expect(store.consume('c', () => {}, { signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no')
    expect(await store.consumers()).toEqual([])
    await store.close()
    await rejects(store.consume('c', () => {}), 'NVENT_CLOSED')
    await rejects(store.feed.read(), 'NVENT_CLOSED')
    await rejects(store.consumers(), 'NVENT_CLOSED')
  })

  it.each<[string, (store: StoreAdapter) => Promise<unknown>, RegExp]>([
    ['a name that is empty', store => store.consume('', () => {}), /name/],
    ['no handler', store => store.consume('c', undefined as any), /handler/],
    ['an unknown option', store => store.consume('c', () => {}, { concurency: 1 } as any), /did you mean "concurrency"/],
    ['attempts of 0', store => store.consume('c', () => {}, { attempts: 0 }), /options\.attempts/],
    ['concurrency of 1.5', store => store.consume('c', () => {}, { concurrency: 1.5 }), /options\.concurrency/],
    ['an unknown beginning', store => store.consume('c', () => {}, { from: 'start' as any }), /options\.from: "start" is not known \(known: beginning, now\)/],
    ['a position that is none', store => store.consume('c', () => {}, { from: { position: 'x' } }), /position/],
    ['an unknown backoff', store => store.consume('c', () => {}, { backoff: { type: 'linear' as any, delay: 1 } }), /options\.backoff\.type/],
    ['a signal that is none', store => store.consume('c', () => {}, { signal: {} as any }), /options\.signal/],
  ])('refuses %s', async (_, call, message) => {
    await rejects(call(context.store), 'NVENT_INVALID', message)
  })

  it('a deleted consumer is forgotten', async () => {
    const { store } = context
    const consumer = await store.consume('c', () => {})
    await consumer.stop()
    expect(await store.deleteConsumer('c')).toBe(true)
    expect(await store.deleteConsumer('c')).toBe(false)
    expect(await store.consumers()).toEqual([])
  })
}
