import { expect, it } from 'vitest'
import { rejects } from '../support/until'
import type { StoreContext } from './store'

export function indexes(context: StoreContext): void {
  it('counts entries, all or those that a filter matches', async () => {
    const { store } = context
    expect(await store.index.count('k')).toBe(0)
    for (let n = 0; n < 60; n++) await store.index.add('k', `e${n}`, n, { status: n % 3 ? 'done' : 'new', n })
    expect(await store.index.count('k')).toBe(60)
    expect(await store.index.count('k', { filter: { status: 'new' } })).toBe(20)
    expect(await store.index.count('k', { filter: { n: [1, 2, 99] } })).toBe(2)
    await store.index.delete('k', 'e0')
    expect(await store.index.count('k')).toBe(59)
  })

  it('adds an entry with version 0 and gets it', async () => {
    const { index } = context.store
    await index.add('flows', 'a', 12.5, { status: 'running', version: 7 })
    expect(await index.get('flows', 'a')).toEqual({ id: 'a', score: 12.5, metadata: { status: 'running', version: 0 } })
    await index.add('flows', 'bare', 0)
    expect(await index.get('flows', 'bare')).toEqual({ id: 'bare', score: 0, metadata: { version: 0 } })
    expect(await index.get('flows', 'b')).toBeNull()
    expect(await index.get('other', 'a')).toBeNull()
  })

  it('replaces score and metadata on the next add', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { old: 1, both: 1 })
    await index.update('k', 'a', { more: 1 })
    await index.add('k', 'a', 2, { both: 2 })
    expect(await index.get('k', 'a')).toEqual({ id: 'a', score: 2, metadata: { both: 2, version: 0 } })
  })

  it('expands dotted keys and leaves nothing of undefined ones', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { 'stats.totalFires': 0, 'stats': { failed: 1 }, 'a.b.c': [1], 'gone': undefined, 'empty': {}, 'list': [] })
    const { metadata } = (await index.get('k', 'a'))!
    expect(metadata).toEqual({ stats: { totalFires: 0, failed: 1 }, a: { b: { c: [1] } }, empty: {}, list: [], version: 0 })
    expect('gone' in metadata).toBe(false)
  })

  it('merges deeply, and keeps siblings at every depth', async () => {
    const { index } = context.store
    await index.add('k', 'a', 5, { a: { b: { c: 1, d: 2 }, e: 3 }, list: [1, 2], scalar: 1, f: 1 })
    expect(await index.update('k', 'a', { a: { b: { c: 9, x: 0 } }, list: [3], scalar: { now: 'object' }, f: '' })).toBe(true)
    expect(await index.get('k', 'a')).toEqual({
      id: 'a', score: 5, metadata: { a: { b: { c: 9, d: 2, x: 0 }, e: 3 }, list: [3], scalar: { now: 'object' }, f: '', version: 1 },
    })
  })

  it('deletes with null and undefined at every depth', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { a: { b: { c: 1, d: 2 } }, s: { x: 1 }, t: 1, u: 1, keep: 0 })
    await index.update('k', 'a', { a: { b: { c: null, d: undefined } }, s: null, t: undefined, new: { gone: null, there: false } })
    const { metadata } = (await index.get('k', 'a'))!
    expect(metadata).toEqual({ a: { b: {} }, u: 1, keep: 0, new: { there: false }, version: 1 })
    expect(Object.keys(metadata.a.b)).toEqual([])
  })

  it('rejects dotted keys at any depth, and changes nothing then', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { a: 1 })
    await rejects(index.update('k', 'a', { 'b.c': 1 }), 'NVENT_INVALID', /b\.c/)
    await rejects(index.update('k', 'a', { x: { y: { 'b.c': 1 } } }), 'NVENT_INVALID', /metadata\.x\.y.*b\.c/)
    await rejects(index.updateWithRetry('k', 'a', { 'b.c': null }), 'NVENT_INVALID', /b\.c/)
    expect((await index.get('k', 'a'))!.metadata).toEqual({ a: 1, version: 0 })
  })

  it('counts versions, ignores one that is passed in, and honours expectedVersion', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { n: 0 })
    expect(await index.update('k', 'a', { n: 1, version: 99 }, { expectedVersion: 0 })).toBe(true)
    expect(await index.update('k', 'a', { n: 2 }, { expectedVersion: 0 })).toBe(false)
    await index.increment('k', 'a', 'n')
    expect((await index.get('k', 'a'))!.metadata).toEqual({ n: 2, version: 2 })
    expect(await index.update('k', 'a', { n: 3 }, { expectedVersion: 2 })).toBe(true)
    expect(await index.update('k', 'a', {})).toBe(true)
    expect((await index.get('k', 'a'))!.metadata).toEqual({ n: 3, version: 4 })
  })

  it('lets exactly one of many win who expect the same version', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1)
    const won = await Promise.all(Array.from({ length: 50 }, (_, n) => index.update('k', 'a', { n }, { expectedVersion: 0 })))
    expect(won.filter(Boolean)).toHaveLength(1)
  })

  it('gives what is there another value, whatever it was and whatever it becomes', async () => {
    const { index } = context.store
    const values = [5, '5', 'x', true, 'true', 1.5, '[1]', [1], {}, { b: 1 }, { b: '1' }, { b: {} }, '', -1]
    for (const before of values) {
      for (const after of values) {
        const isMerged = typeof before === 'object' && typeof after === 'object' && !Array.isArray(before) && !Array.isArray(after)
        const expected = { v: isMerged ? { ...before, ...after } : after, empty: {}, n: 2, version: 1 }
        for (const patch of [{ v: after, n: 2 }, { v: after, n: 2, empty: {} }]) {
          await index.add('k', 'a', 1, { v: before, empty: {}, n: 1 })
          await index.update('k', 'a', patch)
          expect((await index.get('k', 'a'))!.metadata, JSON.stringify([before, patch])).toEqual(expected)
        }
      }
    }
    await index.update('k', 'a', { made: {}, n: 3 })
    expect((await index.get('k', 'a'))!.metadata).toMatchObject({ made: {}, n: 3 })
  })

  it('rejects none of 200 simultaneous updates, and loses none', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { events: {} })
    await Promise.all(Array.from({ length: 200 }, (_, n) => index.updateWithRetry('k', 'a', { events: { [`e${n}`]: { n } } })))
    const { metadata } = (await index.get('k', 'a'))!
    expect(Object.keys(metadata.events)).toHaveLength(200)
    expect(metadata.events.e77).toEqual({ n: 77 })
    expect(metadata.version).toBe(200)
  })

  it('increments at a path, creating what is missing on the way', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { completedSteps: 1, text: 'x', stats: { running: 1 } })
    expect(await index.increment('k', 'a', 'completedSteps')).toBe(2)
    expect(await index.increment('k', 'a', 'stats.running', -1)).toBe(0)
    expect(await index.increment('k', 'a', 'stats.deep.er', 2.5)).toBe(2.5)
    expect(await index.increment('k', 'a', 'fresh', 3)).toBe(3)
    expect((await index.get('k', 'a'))!.metadata).toEqual({
      completedSteps: 2, text: 'x', stats: { running: 0, deep: { er: 2.5 } }, fresh: 3, version: 4,
    })
    await rejects(index.increment('k', 'a', 'text'), 'NVENT_TYPE', /text/)
    await rejects(index.increment('k', 'a', 'stats'), 'NVENT_TYPE', /stats/)
  })

  it('loses none of many simultaneous increments', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1)
    const values = await Promise.all(Array.from({ length: 200 }, () => index.increment('k', 'a', 'stats.n')))
    expect(values.sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, n) => n + 1))
  })

  it('says so where the entry is missing', async () => {
    const { index } = context.store
    expect(await index.update('k', 'missing', { a: 1 })).toBe(false)
    await rejects(index.updateWithRetry('k', 'missing', { a: 1 }), 'NVENT_NOT_FOUND', /missing/)
    await rejects(index.updateWithRetry('k', 'missing', { a: 1 }, 2), 'NVENT_NOT_FOUND')
    await rejects(index.increment('k', 'missing', 'n'), 'NVENT_NOT_FOUND', /Entry not found/)
    expect(await index.delete('k', 'missing')).toBe(false)
    expect(await index.read('k')).toEqual([])
  })

  it('deletes an entry', async () => {
    const { index } = context.store
    await index.add('k', 'a', 1, { a: 1 })
    await index.add('k', 'b', 1)
    expect(await index.delete('k', 'a')).toBe(true)
    expect(await index.delete('k', 'a')).toBe(false)
    expect(await index.get('k', 'a')).toBeNull()
    expect((await index.read('k')).map(entry => entry.id)).toEqual(['b'])
  })

  it('reads highest score first, ties by id ascending', async () => {
    const { index } = context.store
    const scores: Array<[string, number]> = [['b', 1], ['a', 1], ['c', 3], ['d', -2], ['e', 0.5], ['B', 1]]
    await Promise.all(scores.map(([id, score]) => index.add('k', id, score)))
    expect((await index.read('k')).map(entry => entry.id)).toEqual(['c', 'B', 'a', 'b', 'e', 'd'])
    await index.add('k', 'd', 9)
    expect((await index.read('k', { limit: 2 })).map(entry => entry.id)).toEqual(['d', 'c'])
  })

  it('reads 50 by default, in pages', async () => {
    const { index } = context.store
    await Promise.all(Array.from({ length: 120 }, (_, n) => index.add('k', `id${n}`, n, { n })))
    const read = async (opts?: Parameters<typeof index.read>[1]): Promise<number[]> => (await index.read('k', opts)).map(entry => entry.metadata.n)
    expect(await read()).toEqual(Array.from({ length: 50 }, (_, n) => 119 - n))
    expect(await read({})).toHaveLength(50)
    expect(await read({ limit: undefined })).toHaveLength(50)
    expect(await read({ limit: 10_000 })).toHaveLength(120)
    expect(await read({ limit: 2, offset: 3 })).toEqual([116, 115])
    expect(await read({ limit: 10, offset: 118 })).toEqual([1, 0])
    expect(await read({ offset: 200 })).toEqual([])
    expect(await read({ limit: 0 })).toEqual([])
  })

  it('filters by equality, by one of, and at dotted paths, before it pages', async () => {
    const { index } = context.store
    const statuses = ['running', 'awaiting', 'completed']
    for (let n = 0; n < 9; n++) await index.add('k', `id${n}`, n, { status: statuses[n % 3], stats: { n, even: n % 2 === 0 }, zero: 0 })
    const read = async (filter: Record<string, any>, more = {}): Promise<string[]> =>
      (await index.read('k', { limit: 1_000, filter, ...more })).map(entry => entry.id)
    expect(await read({ status: 'running' })).toEqual(['id6', 'id3', 'id0'])
    expect(await read({ status: ['running', 'awaiting'] })).toEqual(['id7', 'id6', 'id4', 'id3', 'id1', 'id0'])
    expect(await read({ status: [] })).toEqual([])
    expect(await read({ 'stats.n': 4 })).toEqual(['id4'])
    expect(await read({ 'stats.n': [0, 8, 77], 'stats.even': true })).toEqual(['id8', 'id0'])
    expect(await read({ 'status': 'running', 'stats.even': false })).toEqual(['id3'])
    expect(await read({ zero: 0 })).toHaveLength(9)
    expect(await read({ zero: '0' })).toEqual([])
    expect(await read({ missing: 1 })).toEqual([])
    expect(await read({ status: ['running', 'awaiting'] }, { limit: 2, offset: 1 })).toEqual(['id6', 'id4'])
    expect(await read({})).toHaveLength(9)
  })

  it('hands out copies', async () => {
    const { index } = context.store
    const metadata = { list: [1], deep: { a: 1 } }
    await index.add('k', 'a', 1, metadata)
    metadata.list.push(2)
    const [entry] = await index.read('k')
    entry!.metadata.list.push(3)
    entry!.metadata.deep.a = 4
    const got = (await index.get('k', 'a'))!
    got.metadata.status = 'changed'
    expect((await index.get('k', 'a'))!.metadata).toEqual({ list: [1], deep: { a: 1 }, version: 0 })
  })

  it('takes effect in the order of the calls', async () => {
    const { index } = context.store
    const results = await Promise.all([
      index.add('k', 'a', 1, { n: 1 }), index.update('k', 'a', { n: 5 }), index.increment('k', 'a', 'n'), index.get('k', 'a'),
      index.delete('k', 'a'), index.get('k', 'a'), index.update('k', 'a', { n: 1 }),
    ])
    expect(results.slice(1)).toEqual([true, 6, { id: 'a', score: 1, metadata: { n: 6, version: 2 } }, true, null, false])
  })

  it('works the same under its older names', async () => {
    const { store } = context
    await store.indexAdd('k', 'a', 1, { n: 1 })
    expect(await store.indexUpdate('k', 'a', { m: 2 })).toBe(true)
    await store.indexUpdateWithRetry('k', 'a', { o: 3 }, 5)
    expect(await store.indexIncrement('k', 'a', 'n', 2)).toBe(3)
    const entry = { id: 'a', score: 1, metadata: { n: 3, m: 2, o: 3, version: 3 } }
    expect(await store.indexGet('k', 'a')).toEqual(entry)
    expect(await store.indexRead('k', { limit: 1 })).toEqual([entry])
    expect(await store.index.get('k', 'a')).toEqual(entry)
  })

  it('keeps keys and ids apart, whatever is in them', async () => {
    const { index } = context.store
    // Where names are shared, the metadata of "b" in the index "a" has the name "a:meta:b", which is reported.
    const clash = context.capabilities.sharedNames ? [] : ['a:meta:b']
    const names = ['a', 'a:b', 'b', ':', ...clash, '*', '__proto__', 'constructor', 'ä', 'x\u0000y', 'x'.repeat(1_000)]
    for (const key of names) for (const id of names) await index.add(key, id, 1, { key, id })
    for (const key of names) {
      expect((await index.read(key)).map(entry => entry.id).sort()).toEqual([...names].sort())
      for (const id of names) expect((await index.get(key, id))!.metadata).toEqual({ key, id, version: 0 })
    }
  })
}
