import { expect, it } from 'vitest'
import { createEventBus } from 'nvent-native'
import type { EventRecord, StoreAdapter } from 'nvent-native'
import { Inbox, nextWarning, rejects, until } from '../support/until'
import type { StoreContext } from './store'

const compareIds = (a: string, b: string): number => {
  const [[ams, aseq], [bms, bseq]] = [a, b].map(id => id.split('-').map(Number)) as [[number, number], [number, number]]
  return ams - bms || aseq - bseq
}
const numbers = (events: EventRecord[]): number[] => events.map(event => event['n'])

async function fill(store: StoreAdapter, subject: string, count: number): Promise<EventRecord[]> {
  return Promise.all(Array.from({ length: count }, (_, n) => store.append(subject, { type: n % 2 ? 'odd' : 'even', n })))
}

export function events(context: StoreContext): void {
  it('gives back the whole record, with an id and a time, and keeps unknown fields as they came', async () => {
    const before = Date.now()
    const event = { type: 'step.completed', runId: 'r', zeta: { b: 1, a: [null, '', 0, false] }, alpha: 'é\u0000\n"', data: { result: 42 } }
    const record = await context.store.append('nq:flow:r', event)
    expect(record).toEqual({ ...event, id: expect.stringMatching(/^\d+-\d+$/), ts: expect.any(Number) })
    expect(record.ts).toBeGreaterThanOrEqual(before - 1)
    expect(record.ts).toBeLessThanOrEqual(Date.now() + 1)
    expect(await context.store.read('nq:flow:r')).toEqual([record])
    expect(Object.keys(record.data)).toEqual(['result'])
    expect(Object.keys(record['zeta'])).toEqual(['b', 'a'])
  })

  it('gives id and ts itself, whatever the caller passes', async () => {
    const record = await context.store.append('s', { type: 'x', id: '1-1', ts: 1 } as any)
    expect(record.id).not.toBe('1-1')
    expect(record.ts).toBeGreaterThan(1)
    expect(await context.store.read('s')).toEqual([record])
  })

  it('gives strictly increasing ids in the order of the calls, without an await between them', async () => {
    const records = await fill(context.store, 's', 300)
    for (let i = 1; i < records.length; i++) expect(compareIds(records[i]!.id, records[i - 1]!.id)).toBeGreaterThan(0)
    expect(await context.store.read('s')).toEqual(records)
  })

  it('reads nothing from a subject that is not there', async () => {
    expect(await context.store.stream.read('nowhere')).toEqual([])
    expect(await context.store.stream.read('nowhere', { limit: 5, order: 'desc' })).toEqual([])
  })

  it('has both names of each operation work on the same data', async () => {
    await context.store.append('s', { type: 'old' })
    await context.store.stream.append('s', { type: 'new' })
    const types = ['old', 'new']
    expect((await context.store.read('s')).map(event => event.type)).toEqual(types)
    expect((await context.store.stream.read('s')).map(event => event.type)).toEqual(types)
  })

  it('reads by type, position, time, limit and order, and by all of them together', async () => {
    const { store } = context
    const records = await fill(store, 's', 10)
    const read = async (opts: Parameters<StoreAdapter['read']>[1]): Promise<number[]> => numbers(await store.stream.read('s', opts))
    const id = (n: number): string => records[n]!.id
    const [first, last] = [records[0]!.ts, records[9]!.ts]
    expect(await read({})).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(await read({ types: ['odd'] })).toEqual([1, 3, 5, 7, 9])
    expect(await read({ types: ['odd', 'even'] })).toHaveLength(10)
    expect(await read({ types: ['none'] })).toEqual([])
    expect(await read({ types: [] })).toEqual([])
    expect(await read({ after: id(7) })).toEqual([8, 9])
    expect(await read({ before: id(2) })).toEqual([0, 1])
    expect(await read({ after: id(2), before: id(5) })).toEqual([3, 4])
    expect(await read({ after: id(5), before: id(2) })).toEqual([])
    expect(await read({ limit: 3 })).toEqual([0, 1, 2])
    expect(await read({ limit: 0 })).toEqual([])
    expect(await read({ order: 'asc', limit: 2 })).toEqual([0, 1])
    expect(await read({ order: 'desc', limit: 2 })).toEqual([9, 8])
    expect(await read({ types: ['odd'], limit: 2, order: 'desc' })).toEqual([9, 7])
    expect(await read({ types: ['odd'], after: id(1), before: id(9), limit: 2, order: 'desc' })).toEqual([7, 5])
    expect(await read({ from: first, to: last })).toHaveLength(10)
    expect(await read({ from: last + 1 })).toEqual([])
    expect(await read({ to: first - 1 })).toEqual([])
    expect(await read({ types: undefined, after: undefined, limit: undefined })).toHaveLength(10)
  })

  it('takes 0 as a time and ids that are not in the subject as positions', async () => {
    const { store } = context
    const records = await fill(store, 's', 4)
    expect(await store.read('s', { from: 0 })).toHaveLength(4)
    expect(await store.read('s', { to: 0 })).toEqual([])
    expect(await store.read('s', { from: 0, to: 0 })).toEqual([])
    expect(await store.read('s', { after: '0-0' })).toHaveLength(4)
    expect(await store.read('s', { after: '9999999999999-0' })).toEqual([])
    expect(await store.read('s', { before: '9999999999999-0', order: 'desc' })).toHaveLength(4)
    expect(await store.read('s', { before: '1-5' })).toEqual([])
    const [ms, seq] = records[1]!.id.split('-')
    expect(numbers(await store.read('s', { after: `${ms}-${Number(seq)}`, limit: 1 }))).toEqual([2])
    await rejects(store.read('s', { after: 'yesterday' }), 'NVENT_INVALID', /after/)
  })

  it('reads its own writes in the order of the calls', async () => {
    const { store } = context
    const results = await Promise.all([
      store.append('s', { type: 'a' }), store.read('s'), store.append('s', { type: 'b' }), store.read('s'),
      store.stream.delete('s'), store.read('s'), store.append('s', { type: 'c' }), store.read('s'),
    ])
    expect([1, 3, 5, 7].map(i => (results[i] as EventRecord[]).map(event => event.type))).toEqual([['a'], ['a', 'b'], [], ['c']])
  })

  it('hands out copies', async () => {
    const { store } = context
    const event = { type: 'x', data: { list: [1] } }
    const record = await store.append('s', event)
    event.data.list.push(2)
    record.data.list.push(3)
    const [read] = await store.read('s')
    expect(read!.data.list).toEqual([1])
    read!.data.list.push(4)
    expect((await store.read('s'))[0]!.data.list).toEqual([1])
  })

  it('lists the subjects that a glob matches, page by page', async () => {
    const { store } = context
    const names = Array.from({ length: 2_500 }, (_, n) => `list:${String(n).padStart(4, '0')}`)
    await Promise.all([...names, 'other', 'list'].map(subject => store.append(subject, { type: 'x' })))
    await store.kv.set('list:key', 1)
    const all = async (pattern?: string): Promise<string[]> => {
      const found = new Set<string>()
      for (let cursor: string | null | undefined; cursor !== null;) {
        const page = await store.subjects(pattern, cursor)
        for (const subject of page.subjects) found.add(subject)
        cursor = page.cursor
      }
      return [...found].sort()
    }
    expect(await all('list:*')).toEqual(names)
    expect(await all('list:00[01]?')).toEqual(names.slice(0, 20))
    expect(await all('other')).toEqual(['other'])
    expect(await all('none*')).toEqual([])
    expect(await all()).toEqual([...names, 'list', 'other'].sort())
    await store.stream.delete('other')
    expect(await all('other')).toEqual([])
  })

  it('keeps subjects apart, whatever is in their names', async () => {
    const { store } = context
    const subjects = ['a', 'a:b', 'a_b', 'a/b', '../a', 'a b', 'ä', '日本', '*', 'a\u0000b', 'A', '__proto__', 'constructor', 'x'.repeat(1_000)]
    for (const subject of subjects) await store.append(subject, { type: 'named', subject })
    for (const subject of subjects) expect((await store.read(subject)).map(event => event['subject'])).toEqual([subject])
  })

  it('deletes a subject, once, and never gives its ids again', async () => {
    const { store } = context
    const before = await store.append('s', { type: 'x' })
    await store.append('other', { type: 'x' })
    expect(await store.stream.delete('s')).toBe(true)
    expect(await store.stream.delete('s')).toBe(false)
    expect(await store.read('s')).toEqual([])
    expect(await store.read('other')).toHaveLength(1)
    const after = await store.append('s', { type: 'x' })
    expect(compareIds(after.id, before.id)).toBeGreaterThan(0)
  })

  it('appends only where the subject ends as expected', async () => {
    const { store } = context
    const first = await store.stream.append('s', { type: 'a' }, { expectedLastId: null })
    await rejects(store.stream.append('s', { type: 'b' }, { expectedLastId: null }), 'NVENT_CONFLICT', /"s"/)
    const second = await store.stream.append('s', { type: 'b' }, { expectedLastId: first.id })
    await rejects(store.stream.append('s', { type: 'c' }, { expectedLastId: first.id }), 'NVENT_CONFLICT')
    await rejects(store.stream.append('empty', { type: 'c' }, { expectedLastId: first.id }), 'NVENT_CONFLICT')
    await rejects(store.stream.append('s', { type: 'c' }, { expectedLastId: 'x' }), 'NVENT_INVALID', /expectedLastId/)
    expect(await store.read('s')).toEqual([first, second])
  })

  it('lets exactly one of many win who expect the same', async () => {
    const { store } = context
    const { id } = await store.append('s', { type: 'start' })
    const attempts = Array.from({ length: 50 }, (_, n) => store.stream.append('s', { type: 'end', n }, { expectedLastId: id }))
    const settled = await Promise.allSettled(attempts)
    expect(settled.filter(one => one.status === 'fulfilled')).toHaveLength(1)
    expect(await store.read('s')).toHaveLength(2)
  })

  it('announces each record on its bus, in order, before the append resolves', async () => {
    const bus = createEventBus()
    const store = context.another({ bus })
    const received: EventRecord[] = []
    bus.onType('*', event => received.push(event))
    const record = await store.append('s', { type: 'x', runId: 'r' })
    expect(received).toEqual([record])
    const records = await fill(store, 's', 100)
    expect(received).toEqual([record, ...records])
    await rejects(store.stream.append('s', { type: 'x' }, { expectedLastId: null }), 'NVENT_CONFLICT')
    expect(received).toHaveLength(101)
  })

  it('announces nowhere with bus: null, and on no other bus', async () => {
    const bus = createEventBus()
    const received = new Inbox()
    bus.onType('*', received.take)
    const announcing = context.another({ bus })
    await context.store.append('s', { type: 'silent' })
    await announcing.append('s', { type: 'loud' })
    expect(received.items.map(event => event.type)).toEqual(['loud'])
  })

  it('delivers what is appended to subscribers of a subject or a glob, in order', async () => {
    const { store } = context
    await store.append('nq:flow:a', { type: 'before' })
    const [exact, glob, all] = [new Inbox<EventRecord>(), new Inbox<EventRecord>(), new Inbox<EventRecord>()]
    const subscription = await store.stream.subscribe('nq:flow:a', exact.take)
    await store.subscribe('nq:flow:[ab]', glob.take)
    await store.subscribe('*', all.take)
    expect(subscription).toEqual({ id: expect.any(String), subject: 'nq:flow:a', unsubscribe: expect.any(Function) })
    const records: EventRecord[] = []
    for (const [n, subject] of ['nq:flow:a', 'nq:flow:b', 'nq:flow:c', 'nq:flow:a'].entries()) records.push(await store.append(subject, { type: 'x', n }))
    expect(await all.atLeast(4)).toEqual(records)
    expect(numbers(await glob.atLeast(3))).toEqual([0, 1, 3])
    expect(numbers(await exact.atLeast(2))).toEqual([0, 3])
  })

  it('misses nothing of 30,000 appends in one turn, with subjects and with globs', async () => {
    const { store } = context
    const [exact, glob] = [new Inbox<EventRecord>(), new Inbox<EventRecord>()]
    await store.subscribe('burst:1', exact.take)
    await store.subscribe('burst:*', glob.take)
    const appends = Array.from({ length: 30_000 }, (_, n) => store.append(`burst:${n % 2}`, { type: 'x', n }))
    await Promise.all(appends)
    const all = numbers(await glob.atLeast(30_000))
    expect(all).toEqual(Array.from({ length: 30_000 }, (_, n) => n))
    expect(numbers(await exact.atLeast(15_000))).toEqual(all.filter(n => n % 2 === 1))
  })

  it('calls no handler after its unsubscribe resolved, taken off the subscription or not', async () => {
    const { store } = context
    const [gone, stays] = [new Inbox(), new Inbox()]
    const { unsubscribe } = await store.subscribe('s', gone.take)
    await store.subscribe('s', stays.take)
    await store.append('s', { type: 'x' })
    await gone.atLeast(1)
    await unsubscribe()
    await unsubscribe()
    await fill(store, 's', 20)
    await stays.atLeast(21)
    expect(gone.items).toHaveLength(1)
  })

  it('counts failing handlers and reports the first one through a warning, and the append succeeds', async () => {
    const { store } = context
    const warning = nextWarning()
    const others = new Inbox()
    await store.subscribe('s', () => { throw new Error('thrown by a handler') })
    await store.subscribe('s', async () => { throw new Error('rejected by a handler') })
    await store.subscribe('s', others.take)
    await fill(store, 's', 2)
    expect((await warning).message).toContain(`${context.capabilities.backend} store`)
    await others.atLeast(2)
    await until('all failures counted', () => store.stats()['handlerErrors'] === 4)
  })
}
