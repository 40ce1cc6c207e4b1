import { expect, it } from 'vitest'
import type { IndexEntry } from 'nvent-native'
import { rejects } from '../support/until'
import type { StoreContext } from './store'

export function pages(context: StoreContext): void {
  it('reads an index in pages after the last entry, whose order ties do not change', async () => {
    const { index } = context.store
    // Ties, fractions, negative scores; ids in an order of bytes, whatever the locale.
    const entries = ['b', 'B', 'a', 'ä', 'Z', 'é', 'z-1', 'z_1', '10', '9'].flatMap(id => [-2.5, 0, 0.1, 7, 1e15].map(score => ({ id: `${id}${score}`, score: Math.abs(score) < 1 ? 0 : score })))
    for (const { id, score } of entries) await index.add('k', id, score, { even: id.length % 2 === 0 })
    const all = await index.read('k', { limit: 100 })
    expect(all).toHaveLength(entries.length)
    for (const filter of [{}, { even: true }]) {
      const wanted = await index.read('k', { limit: 100, filter })
      for (const limit of [1, 3, 7, 50]) {
        const read: IndexEntry[] = []
        for (let page = await index.read('k', { limit, filter }); page.length > 0; page = await index.read('k', { limit, filter, cursor: page.at(-1)! })) read.push(...page)
        expect(read).toEqual(wanted)
      }
    }
    expect(await index.read('k', { cursor: all[4]!, offset: 3, limit: 2 })).toEqual(all.slice(8, 10))
    expect(await index.read('k', { cursor: { id: 'nobody', score: 3 }, limit: 100 })).toEqual(all.filter(({ score }) => score < 3))
    expect(await index.read('none', { cursor: all[0]! })).toEqual([])
  })

  it('loses and repeats nothing of what was there while others add, update and delete', async () => {
    const { index } = context.store
    const there = Array.from({ length: 60 }, (_, n) => `old${String(n).padStart(2, '0')}`)
    for (const [n, id] of there.entries()) await index.add('k', id, n % 7, { n })
    const seen: string[] = []
    let cursor: IndexEntry | undefined
    for (let round = 0; ; round++) {
      const page = await index.read('k', { limit: 5, ...cursor ? { cursor } : {} })
      if (page.length === 0) break
      seen.push(...page.map(entry => entry.id))
      cursor = page.at(-1)!
      // Before, within and after the place; the entry of the place itself goes.
      await Promise.all([
        ...[8, cursor.score, -1].map((score, n) => round < 8 ? index.add('k', `new${round}-${n}`, score) : undefined),
        ...there.slice(0, 10).map(id => index.update('k', id, { touched: round })),
        index.delete('k', cursor.id),
      ])
    }
    expect(new Set(seen).size).toBe(seen.length)
    expect(seen.filter(id => id.startsWith('old')).sort()).toEqual(there)
  })

  it('lists documents in pages after the last one, by id or by a field, in both directions', async () => {
    const { store } = context
    for (const opts of [{}, { order: 'desc' }, { sortBy: 'at.group' }, { sortBy: 'at.group', order: 'desc' }, { filter: { 'at.group': [1, 2] } }] as const) {
      for (const { id } of await store.list('c')) await store.delete('c', id)
      for (let n = 0; n < 30; n++) await store.save('c', `d${String(n).padStart(2, '0')}`, { n, at: [{ group: null }, { group: 1 }, { group: 2 }, {}][n % 4] })
      const all = await store.list('c', opts), read: unknown[] = []
      expect(all.length).toBeGreaterThan(10)
      for (let page = await store.list('c', { ...opts, limit: 7 }); page.length > 0; page = await store.list('c', { ...opts, limit: 7, cursor: page.at(-1)! })) {
        read.push(...page)
        // What is gone is a place all the same.
        await store.delete('c', page.at(-1)!.id)
        await store.save('c', `a-new-${read.length}`, { n: 1, at: { group: 'text' } })
      }
      const known = new Set(all.map(({ id }) => id))
      expect(read.filter((row: any) => known.has(row.id))).toEqual(all)
    }
  })

  it('refuses a cursor that is none', async () => {
    const { store } = context
    await rejects(store.index.read('k', { cursor: 'x' as never }), 'NVENT_INVALID', /options\.cursor/)
    await rejects(store.index.read('k', { cursor: { id: 'x' } as never }), 'NVENT_INVALID', /options\.cursor\.score/)
    await rejects(store.list('c', { cursor: { doc: {} } as never }), 'NVENT_INVALID', /options\.cursor\.id/)
    await rejects(store.list('c', { cursor: { id: 'x' }, sortBy: 'n' }), 'NVENT_INVALID', /options\.cursor\.doc/)
  })
}
