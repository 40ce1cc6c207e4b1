import { expect, it } from 'vitest'
import { rejects, until } from '../support/until'
import type { StoreContext } from './store'

export function keys(context: StoreContext): void {
  it.each([
    0, -0.5, 1e21, 2 ** 53, '', 'text', '00123', 'true', '{}', '[', 'null', 'a\u0000b', false, true, null,
    [], {}, [null, [], {}], { 'a': { b: [1, { c: null }] }, '': 0, 'x.y': 1 },
  ])('gives back %j as it was set', async (value) => {
    await context.store.kv.set('key', value)
    expect(await context.store.kv.get('key')).toEqual(value)
  })

  it('returns null for what is not there, and deletes it without complaint', async () => {
    const { kv } = context.store
    expect(await kv.get('missing')).toBeNull()
    await kv.delete('missing')
    await kv.set('there', 1)
    await kv.delete('there')
    expect(await kv.get('there')).toBeNull()
  })

  it('distinguishes a stored null from none by clear', async () => {
    await context.store.kv.set('null', null)
    expect(await context.store.kv.clear('null')).toBe(1)
    expect(await context.store.kv.clear('null')).toBe(0)
  })

  it('hands out copies', async () => {
    const { kv } = context.store
    const value = { list: [1] }
    await kv.set('key', value)
    value.list.push(2)
    const read = await kv.get('key')
    read.list.push(3)
    expect(await kv.get('key')).toEqual({ list: [1] })
  })

  it('takes effect in the order of the calls', async () => {
    const { kv } = context.store
    const results = await Promise.all([
      kv.set('k', 1), kv.get('k'), kv.increment('k'), kv.get('k'), kv.set('k', 'x'), kv.get('k'), kv.delete('k'), kv.get('k'),
    ])
    expect(results).toEqual([undefined, 1, 2, 2, undefined, 'x', undefined, null])
  })

  it('lets values go after their ttl, fractions of a second too, and not before', async () => {
    const { kv } = context.store
    await Promise.all([kv.set('short', 'x', 0.05), kv.set('long', 'x', 300), kv.set('ever', 'x'), kv.set('undefined', 'x', undefined)])
    expect(await kv.get('long')).toBe('x')
    await until('the key is gone', async () => await kv.get('short') === null)
    expect(await kv.clear('short')).toBe(0)
    expect(await Promise.all(['long', 'ever', 'undefined'].map(key => kv.get(key)))).toEqual(['x', 'x', 'x'])
  })

  it('has a set without ttl end the old one, and a new ttl replace it', async () => {
    const { kv } = context.store
    await kv.set('kept', 1, 0.2)
    await kv.set('kept', 2)
    await kv.set('renewed', 1, 0.2)
    await kv.set('renewed', 2, 300)
    await kv.set('clock', 1, 0.2)
    await until('the ttl has passed', async () => await kv.get('clock') === null)
    expect([await kv.get('kept'), await kv.get('renewed')]).toEqual([2, 2])
  })

  it('increments by one or by anything, from 0 where nothing is', async () => {
    const { kv } = context.store
    expect(await kv.increment('n')).toBe(1)
    expect(await kv.increment('n', 5)).toBe(6)
    expect(await kv.increment('n', -10)).toBe(-4)
    expect(await kv.increment('n', 0.5)).toBe(-3.5)
    expect(await kv.increment('n', 0)).toBe(-3.5)
    expect(await kv.get('n')).toBe(-3.5)
    expect(await kv.increment('nq:flow:run:counter', 2)).toBe(2)
    expect(await kv.get('nq:flow:run:counter')).toBe(2)
  })

  it('adds as JavaScript does, also where whole numbers are no longer exact', async () => {
    const { kv } = context.store
    await kv.set('n', Number.MAX_SAFE_INTEGER - 1)
    for (const by of [1, 1, 1, 3, -Number.MAX_SAFE_INTEGER, 1e15, 0.25]) {
      const sum = (await kv.get<number>('n'))! + by
      expect(await kv.increment('n', by)).toBe(sum)
      expect(await kv.get('n')).toBe(sum)
    }
  })

  it('loses none of many simultaneous increments', async () => {
    const { kv } = context.store
    const values = await Promise.all(Array.from({ length: 200 }, () => kv.increment('n')))
    expect(new Set(values).size).toBe(200)
    expect(await kv.get('n')).toBe(200)
  })

  it('keeps the ttl over an increment, and starts at 0 after it', async () => {
    const { kv } = context.store
    await kv.set('n', 41, 0.2)
    expect(await kv.increment('n')).toBe(42)
    await until('the key is gone', async () => await kv.get('n') === null)
    expect(await kv.increment('n')).toBe(1)
  })

  it.each(['text', '', true, null, [1], { n: 1 }])('does not increment %j', async (value) => {
    const { kv } = context.store
    await kv.set('v', value)
    await rejects(kv.increment('v'), 'NVENT_TYPE', /"v"/)
    expect(await kv.get('v')).toEqual(value)
  })

  it('clears what a glob matches and counts it', async () => {
    const { kv } = context.store
    const all = ['nq:flow:r1:a', 'nq:flow:r1:b', 'nq:flow:r1:c:d', 'nq:flow:r2:a', 'nq:flow:r1', 'other', 'a*b', 'axb']
    for (const key of all) await kv.set(key, key)
    const left = async (): Promise<string[]> => {
      const values = await Promise.all(all.map(key => kv.get(key)))
      return values.filter(value => value !== null)
    }
    expect(await kv.clear('nq:flow:r1:*')).toBe(3)
    expect(await left()).toEqual(all.slice(3))
    expect(await kv.clear('a\\*b')).toBe(1)
    expect(await kv.clear('nq:flow:r[12]')).toBe(1)
    expect(await kv.clear('o?her')).toBe(1)
    expect(await kv.clear('nothing*')).toBe(0)
    expect(await left()).toEqual(['nq:flow:r2:a', 'axb'])
  })

  it('clears nothing but kv values', async () => {
    const { store } = context
    await store.append('events', { type: 'x' })
    await store.index.add('index', 'id', 1, { a: 1 })
    await store.save('documents', 'id', { a: 1 })
    await store.kv.set('key', 1)
    expect(await store.kv.clear('*')).toBe(1)
    expect(await store.read('events')).toHaveLength(1)
    expect(await store.index.get('index', 'id')).not.toBeNull()
    expect(await store.get('documents', 'id')).toEqual({ a: 1 })
  })

  it('has one name mean several things, or refuses that without harm', async () => {
    const { store, capabilities } = context
    await store.append('same', { type: 'x' })
    for (const call of [() => store.kv.increment('same'), () => store.index.add('same', 'id', 1)]) {
      if (capabilities.sharedNames) await rejects(call(), 'NVENT_TYPE')
      else await call()
    }
    expect(await store.read('same')).toHaveLength(1)
  })

  it('keeps keys apart, whatever is in their names', async () => {
    const { kv } = context.store
    const names = ['a', 'a:b', 'a_b', 'a/b', '../a', ' ', 'ä', '*', 'a\u0000b', 'A', '__proto__', 'constructor', 'x'.repeat(1_000)]
    await Promise.all(names.map(name => kv.set(name, { name })))
    for (const name of names) expect(await kv.get(name)).toEqual({ name })
    expect(({} as any).name).toBeUndefined()
  })

  it('takes values of a megabyte', async () => {
    const value = { text: 'ä'.repeat(500_000) }
    await context.store.kv.set('big', value)
    expect(await context.store.kv.get('big')).toEqual(value)
  })
}
