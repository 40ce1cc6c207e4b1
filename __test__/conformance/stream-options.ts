import { describe, expect, it } from 'vitest'
import type { StreamAdapter } from 'nvent-native'
import { gate, Inbox, rejects, until } from '../support/until'
import type { StreamContext } from './stream'
import { data, send } from './stream-delivery'
import { overflowing } from './stream-shared'

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

export function options(context: StreamContext): void {
  it.each<[string, string | RegExp, string[]]>([
    ['a glob', 'flow.*', ['flow.start', 'flow.completed']],
    ['a glob without wildcards', 'emit', ['emit']],
    ['a RegExp', /^flow\.(start|failed)$/, ['flow.start']],
    ['a RegExp anywhere in the type', /compl/, ['step.completed', 'flow.completed']],
    ['a RegExp with flags', /^FLOW/i, ['flow.start', 'flow.completed']],
    ['a global RegExp', /flow/g, ['flow.start', 'flow.completed']],
  ])('filters by %s on the type', async (_what, filter, expected) => {
    const { stream } = context
    const [inbox, all] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', inbox.take, { filter })
    await stream.subscribe('t', all.take)
    for (const type of ['flow.start', 'emit', 'step.completed', 'flow.completed']) await stream.publish('t', { type, data: 1 })
    await stream.publish('t', { data: 'no type' } as any)
    await all.atLeast(5)
    expect((await inbox.atLeast(expected.length)).map(event => event.type)).toEqual(expected)
  })

  it('refuses a RegExp that cannot be matched natively', async () => {
    for (const filter of [/(?=x)/, /(a)\1/]) await rejects(context.stream.subscribe('t', () => {}, { filter }), 'NVENT_INVALID', /filter/)
  })

  it.each<[string, any, RegExp]>([
    ['a misspelt option', { ignoreown: true }, /ignoreown.*ignoreOwn/],
    ['another type', { buffer: '5' }, /buffer/],
    ['an empty buffer', { buffer: 0 }, /buffer/],
    ['half an event', { buffer: 1.5 }, /buffer/],
    ['an unknown policy', { overflow: 'drop' }, /overflow.*drop-oldest/],
    ['a filter that is no text', { filter: {} }, /filter/],
    ['a group without a name', { group: '' }, /group/],
    ['options that are none', 'group', /options/],
  ])('refuses %s', async (_what, opts, message) => {
    await rejects(context.stream.subscribe('t', () => {}, opts), 'NVENT_INVALID', message)
    expect(await context.stream.listTopics()).toEqual([])
  })

  it('leaves out its own with ignoreOwn', async () => {
    const { stream, another, capabilities } = context
    const [others, all] = [new Inbox(), new Inbox()]
    await stream.subscribe('t', others.take, { ignoreOwn: true })
    await stream.subscribe('t', all.take)
    await send(stream, 't', 3)
    await all.atLeast(3)
    if (capabilities.shared) {
      await another().publish('t', { type: 'x', data: 'from another' })
      await others.atLeast(1)
    }
    expect(data(others.items)).toEqual(capabilities.shared ? ['from another'] : [])
  })

  describe('group', () => {
    const members = async (stream: StreamAdapter, count: number, more = {}): Promise<Inbox[]> => {
      const inboxes = range(0, count).map(() => new Inbox())
      for (const inbox of inboxes) {
        await stream.subscribe('jobs', async (event) => {
          inbox.take(event)
          await new Promise(resolve => setImmediate(resolve))
        }, { group: 'workers', ...more })
      }
      return inboxes
    }
    const total = (inboxes: Inbox[]): number => inboxes.reduce((sum, inbox) => sum + inbox.items.length, 0)

    it('gives each event to exactly one member, and uses all members', async () => {
      const stream = context.another({ retain: 1_000 })
      const inboxes = await members(stream, 4)
      const outside = new Inbox()
      await stream.subscribe('jobs', outside.take)
      await send(stream, 'jobs', 200)
      await outside.atLeast(200)
      await until('all are taken', () => total(inboxes) >= 200)
      expect(inboxes.flatMap(inbox => data(inbox.items)).sort((a, b) => a - b)).toEqual(range(0, 200))
      for (const inbox of inboxes) expect(inbox.items.length).toBeGreaterThan(0)
    })

    it('passes on to the others what a busy member has not taken', async () => {
      const stream = context.another({ retain: 1_000 })
      const { opened, open } = gate()
      const busy = new Inbox()
      await stream.subscribe('jobs', async (event) => {
        busy.take(event)
        await opened
      }, { group: 'workers' })
      const [other] = await members(stream, 1)
      await send(stream, 'jobs', 20)
      await until('the rest is done', () => busy.items.length + other!.items.length === 20)
      expect(busy.items.length).toBeLessThan(20)
      open()
    })

    it('goes on with the members that are left', async () => {
      const stream = context.another({ retain: 1_000 })
      const leaving = await stream.subscribe('jobs', () => {}, { group: 'workers' })
      const inboxes = await members(stream, 1)
      await leaving.unsubscribe()
      await send(stream, 'jobs', 10)
      expect(data(await inboxes[0]!.atLeast(10))).toEqual(range(0, 10))
    })

    it('gives each of several groups everything', async () => {
      const stream = context.another({ retain: 1_000 })
      const [a, b] = [new Inbox(), new Inbox()]
      await stream.subscribe('jobs', a.take, { group: 'a' })
      await stream.subscribe('jobs', b.take, { group: 'b' })
      await send(stream, 'jobs', 5)
      expect(data(await a.atLeast(5))).toEqual(range(0, 5))
      expect(data(await b.atLeast(5))).toEqual(range(0, 5))
    })

    it('is refused together with ignoreOwn', async () => {
      const stream = context.another({ retain: 1_000 })
      await rejects(stream.subscribe('jobs', () => {}, { group: 'workers', ignoreOwn: true }), 'NVENT_INVALID', /ignoreOwn.*group/)
    })

    it('works without retention where the backend can, and says so where it cannot', async () => {
      const subscribed = context.stream.subscribe('jobs', () => {}, { group: 'workers' })
      if (context.capabilities.groupAcknowledges) await rejects(subscribed, 'NVENT_INVALID', /retain/)
      else expect(await subscribed).toMatchObject({ topic: 'jobs' })
    })
  })

  describe('fromBeginning', () => {
    it('is refused where nothing is retained', async () => {
      await rejects(context.stream.subscribe('t', () => {}, { fromBeginning: true }), 'NVENT_INVALID', /retain/)
    })

    it('gives what is retained, then what comes, without hole or duplicate', async () => {
      const stream = context.another({ retain: 10_000 })
      await send(stream, 't', 100)
      const inbox = new Inbox()
      const publishing = send(stream, 'ahead', 1).then(() => Promise.all(range(100, 300).map(n => stream.publish('t', { type: 'x', data: n }))))
      await stream.subscribe('t', inbox.take, { fromBeginning: true })
      await publishing
      await stream.publish('t', { type: 'x', data: 300 })
      expect(data(await inbox.atLeast(301))).toEqual(range(0, 301))
    })

    it('takes patterns, filters, and the bound of what is retained', async () => {
      const stream = context.another({ retain: 5 })
      for (const n of range(0, 8)) await stream.publish('t:a', { type: n % 2 ? 'odd' : 'even', data: n })
      await stream.publish('u', { type: 'odd', data: 'elsewhere' })
      const [all, odd] = [new Inbox(), new Inbox()]
      await stream.subscribe('t:a', all.take, { fromBeginning: true })
      await stream.subscribe('t:*', odd.take, { fromBeginning: true, filter: 'odd' })
      // What is published trims what is retained, so that comes first.
      await until('what is retained', () => [all, odd].every(inbox => data(inbox.items).includes(7)))
      await stream.publish('t:a', { type: 'odd', data: 'live' })
      const [whole, filtered] = [[3, 4, 5, 6, 7, 'live'], [3, 5, 7, 'live']]
      await until('the live one', () => [all, odd].every(inbox => data(inbox.items).includes('live')))
      const exact = context.capabilities.retainsExactly
      expect(data(all.items).slice(exact ? 0 : -whole.length)).toEqual(whole)
      expect(data(odd.items).slice(exact ? 0 : -filtered.length)).toEqual(filtered)
    })
  })

  describe('buffer and overflow', () => {
    it('drops the oldest by default, and reports the gap before what follows', async () => {
      const { stream } = context
      const items = await overflowing(stream, { buffer: 4 }, 10, 6)
      const gap = { type: 'stream.gap', data: { reason: 'overflow', topic: 't', missed: 6 }, timestamp: expect.any(Number) }
      expect(items).toEqual(['first', gap, 6, 7, 8, 9])
      expect(stream.stats()).toMatchObject({ dropped: 6, gaps: 1 })
    })

    it('drops the newest on request', async () => {
      const items = await overflowing(context.stream, { buffer: 4, overflow: 'drop-newest' }, 10, 6)
      expect(items.filter(item => typeof item === 'number')).toEqual([0, 1, 2, 3])
      expect(items.find(item => item.type === 'stream.gap')!.data).toEqual({ reason: 'overflow', topic: 't', missed: 6 })
    })

    it('has the gap pass every filter', async () => {
      const items = await overflowing(context.stream, { buffer: 2, filter: /^x$/ }, 5, 4)
      expect(items.map(item => item.type ?? item)).toEqual(['first', 'stream.gap', 3, 4])
    })

    it('loses nothing where nothing overflows', async () => {
      const items = await overflowing(context.stream, { buffer: 100 }, 50, 51)
      expect(items).toEqual(['first', ...range(0, 50)])
      expect(context.stream.stats()).toMatchObject({ dropped: 0, gaps: 0 })
    })

    it('loses nothing with block, when publishers wait for one another', async () => {
      const { stream } = context
      const inbox = new Inbox()
      await stream.subscribe('t', async (event) => {
        await new Promise(resolve => setImmediate(resolve))
        inbox.take(event)
      }, { buffer: 2, overflow: 'block' })
      for (const n of range(0, 50)) await stream.publish('t', { type: 'x', data: n })
      expect(data(await inbox.atLeast(50))).toEqual(range(0, 50))
      expect(stream.stats()).toMatchObject({ dropped: 0, gaps: 0 })
    })

    it('loses nothing with block, when publishes are under way together', async () => {
      const { stream } = context
      const inbox = new Inbox()
      await stream.subscribe('t', async (event) => {
        await new Promise(resolve => setImmediate(resolve))
        inbox.take(event)
      }, { buffer: 2, overflow: 'block' })
      await send(stream, 't', 200)
      expect(data(await inbox.atLeast(200))).toEqual(range(0, 200))
      expect(stream.stats()).toMatchObject({ dropped: 0, gaps: 0 })
    })

    it('keeps blocking bounded for publishers that do not wait', async () => {
      const { stream } = context
      const { opened, open } = gate()
      const inbox = new Inbox()
      await stream.subscribe('t', async (event) => {
        await opened
        inbox.take(event)
      }, { buffer: 2, overflow: 'block' })
      const publishes = send(stream, 't', 10_100)
      await until('some are dropped', () => stream.stats().dropped > 0)
      open()
      await publishes
      await until('the gap is reported', () => inbox.items.some(event => event.type === 'stream.gap'))
    })
  })
}
