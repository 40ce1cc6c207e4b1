import { MemoryStoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { Filter } from '../lib/trigger/filter'

const VALUES: unknown[] = [undefined, null, '', 'a', 'b', 0, 1, true, {}, { a: 1 }, { b: 1 }, { a: 1, b: 2 }, { 0: 1 }, { a: { b: null } }, [], [1], [1, 2], [2, 1], ['a'], [[1]], [{ a: 1 }]]
const objects = VALUES.map(v => v === undefined ? {} : { v })
const filters = [
  ...VALUES.filter(v => v !== undefined).map(v => ({ v })),
  { v: ['a', 1] }, { v: [null, 'b'] }, { v: [{ a: 1 }, []] }, { 'v.a': 1 }, { 'v.a': null }, { 'v.a.b': null }, { 'v.0': 1 }, { v: 'a', w: null }, { v: 'a', w: 1 }, { 'v.length': 1 }, {},
]

it('a filter of triggers and webhooks selects what the same filter of an index selects', async () => {
  await using store = new MemoryStoreAdapter({ bus: null })
  for (const [i, metadata] of objects.entries()) await store.index.add('i', String(i), i, metadata)
  const metadata = new Map((await store.index.read('i')).map(entry => [entry.id, entry.metadata]))
  for (const filter of filters) {
    const found = (await store.index.read('i', { filter })).map(({ id }) => id)
    const matching = [...metadata].filter(([, object]) => new Filter('filter', filter).matches(object)).map(([id]) => id)
    expect(matching, JSON.stringify(filter)).toEqual(found)
  }
})
