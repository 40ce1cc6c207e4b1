import { expect, it } from 'vitest'
import type { StoreContext } from './store'

export function documents(context: StoreContext): void {
  it('saves, gets, replaces and deletes', async () => {
    const { store } = context
    expect(await store.get('c', 'a')).toBeNull()
    await store.save('c', 'a', { n: 1, gone: true, nested: { 'x.y': [null] } })
    expect(await store.get('c', 'a')).toEqual({ n: 1, gone: true, nested: { 'x.y': [null] } })
    await store.save('c', 'a', { n: 2 })
    expect(await store.get('c', 'a')).toEqual({ n: 2 })
    expect(await store.get('other', 'a')).toBeNull()
    await store.delete('c', 'a')
    await store.delete('c', 'a')
    expect(await store.get('c', 'a')).toBeNull()
    expect(await store.list('c')).toEqual([])
  })

  it('lists all of a collection, by id unless sorted', async () => {
    const { store } = context
    for (const id of ['b', 'c', 'a']) await store.save('c', id, { id, type: 'doc' })
    await store.save('other', 'x', {})
    expect(await store.list('c')).toEqual(['a', 'b', 'c'].map(id => ({ id, doc: { id, type: 'doc' } })))
    for (let n = 0; n < 120; n++) await store.save('many', `id${n}`, { n })
    expect(await store.list('many')).toHaveLength(120)
  })

  it('filters, sorts and pages', async () => {
    const { store } = context
    const docs = [['a', 3, 'x'], ['b', 1, 'y'], ['c', 2, 'x'], ['d', 10, 'z'], ['e', 1, 'x']] as const
    for (const [id, n, kind] of docs) await store.save('c', id, { n, kind, deep: { n: -n } })
    const list = async (opts: Parameters<typeof store.list>[1]): Promise<string> => (await store.list('c', opts)).map(row => row.id).join('')
    expect(await list({ filter: { kind: 'x' } })).toBe('ace')
    expect(await list({ filter: { kind: ['y', 'z'] } })).toBe('bd')
    expect(await list({ filter: { 'deep.n': -2 } })).toBe('c')
    expect(await list({ sortBy: 'n' })).toBe('becad')
    expect(await list({ sortBy: 'n', order: 'asc' })).toBe('becad')
    expect((await list({ sortBy: 'n', order: 'desc' })).slice(0, 3)).toBe('dac')
    expect(await list({ sortBy: 'deep.n' })).toMatch(/^dac/)
    expect(await list({ limit: 2 })).toBe('ab')
    expect(await list({ limit: 2, offset: 2 })).toBe('cd')
    expect(await list({ offset: 4 })).toBe('e')
    expect(await list({ limit: 0 })).toBe('')
    expect(await list({ filter: { kind: 'x' }, sortBy: 'n', limit: 1, offset: 1 })).toBe('c')
  })

  it('hands out copies', async () => {
    const { store } = context
    const doc = { list: [1] }
    await store.save('c', 'a', doc)
    doc.list.push(2)
    ;(await store.get('c', 'a'))!['list'].push(3)
    ;(await store.list('c'))[0]!.doc.list.push(4)
    expect(await store.get('c', 'a')).toEqual({ list: [1] })
  })

  it('takes effect in the order of the calls', async () => {
    const { store } = context
    const results = await Promise.all([
      store.save('c', 'a', { n: 1 }), store.get('c', 'a'), store.delete('c', 'a'), store.get('c', 'a'), store.save('c', 'a', { n: 2 }), store.list('c'),
    ])
    expect([results[1], results[3], results[5]]).toEqual([{ n: 1 }, null, [{ id: 'a', doc: { n: 2 } }]])
  })
}
