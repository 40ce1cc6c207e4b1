import { afterEach, describe, expect, it } from 'vitest'
import { rejects } from '../support/until'
import { noJson, noNames, noNumbers, noObjects, odd, shown, throughJson, unreadable } from '../support/values'
import type { StoreContext } from './store'

export function badInput(context: StoreContext): void {
  afterEach(() => {
    expect(({} as any).polluted).toBeUndefined()
    expect(Object.keys(Object.prototype)).toEqual([])
  })

  const named: Array<[what: string, argument: string, call: (name: any) => Promise<unknown>]> = [
    ['stream.append', 'subject', name => context.store.stream.append(name, { type: 'x' })],
    ['stream.read', 'subject', name => context.store.stream.read(name)],
    ['stream.subscribe', 'subject', name => context.store.stream.subscribe(name, () => {})],
    ['stream.delete', 'subject', name => context.store.stream.delete(name)],
    ['append', 'subject', name => context.store.append(name, { type: 'x' })],
    ['kv.get', 'key', name => context.store.kv.get(name)],
    ['kv.set', 'key', name => context.store.kv.set(name, 1)],
    ['kv.delete', 'key', name => context.store.kv.delete(name)],
    ['kv.clear', 'pattern', name => context.store.kv.clear(name)],
    ['kv.increment', 'key', name => context.store.kv.increment(name)],
    ['index.add', 'key', name => context.store.index.add(name, 'id', 1)],
    ['index.add', 'id', name => context.store.index.add('k', name, 1)],
    ['index.get', 'id', name => context.store.index.get('k', name)],
    ['index.read', 'key', name => context.store.index.read(name)],
    ['index.update', 'id', name => context.store.index.update('k', name, { a: 1 })],
    ['index.updateWithRetry', 'key', name => context.store.index.updateWithRetry(name, 'id', { a: 1 })],
    ['index.increment', 'field', name => context.store.index.increment('k', 'id', name)],
    ['index.delete', 'key', name => context.store.index.delete(name, 'id')],
    ['save', 'collection', name => context.store.save(name, 'id', {})],
    ['get', 'id', name => context.store.get('c', name)],
    ['list', 'collection', name => context.store.list(name)],
    ['delete', 'id', name => context.store.delete('c', name)],
  ]
  it.each(named)('%s refuses what is no name as its %s', async (_method, argument, call) => {
    await context.store.index.add('k', 'id', 1)
    for (const name of noNames) await rejects(call(name), 'NVENT_INVALID', new RegExp(`\\b${argument}\\b`))
  })

  const objects: Array<[what: string, argument: string, call: (value: any) => Promise<unknown>]> = [
    ['append', 'event', value => context.store.append('s', value)],
    ['save', 'doc', value => context.store.save('c', 'id', value)],
    ['index.update', 'metadata', value => context.store.index.update('k', 'id', value)],
    ['index.updateWithRetry', 'metadata', value => context.store.index.updateWithRetry('k', 'id', value)],
  ]
  it.each(objects)('%s refuses what is no object as its %s', async (_method, argument, call) => {
    await context.store.index.add('k', 'id', 1)
    for (const value of noObjects) await rejects(call(value), 'NVENT_INVALID', new RegExp(argument))
  })

  it('refuses what JSON leaves out of a filter, which would select everything', async () => {
    const { store } = context
    await store.index.add('k', 'id', 1, { owner: 'a' })
    await store.save('c', 'id', { owner: 'a' })
    const refuses = async (filter: any, message: RegExp) => {
      await rejects(store.index.read('k', { filter }), 'NVENT_INVALID', message)
      await rejects(store.index.count('k', { filter }), 'NVENT_INVALID', message)
      await rejects(store.list('c', { filter }), 'NVENT_INVALID', message)
    }
    for (const owner of [undefined, () => 'b', Symbol('b'), { toJSON: () => undefined }]) {
      await refuses({ status: 'x', owner }, /filter\.owner/)
      await refuses({ owner: ['b', owner] }, /filter\.owner/)
    }
    await refuses({ owner: Array(1) }, /filter\.owner/)
    for (const filter of [new Map([['owner', 'b']]), new URLSearchParams('owner=b'), Object.create({ owner: 'b' })]) {
      await refuses(filter, /filter: expected the fields/)
    }
    expect(await store.index.read('k', { filter: { owner: null } })).toEqual([])
    for (const filter of [{}, Object.create(null)]) expect(await store.index.read('k', { filter })).toHaveLength(1)
  })

  it('refuses names with more dots than metadata can be deep, and nothing is stored', async () => {
    const { store } = context
    await store.index.add('k', 'id', 1, { n: 1 })
    for (const dots of [600, 20_000, 400_000]) {
      await rejects(store.index.add('k', 'deep', 1, { ['a.'.repeat(dots) + 'a']: 1 }), 'NVENT_INVALID', /deep/)
    }
    await rejects(store.index.increment('k', 'id', 'a.'.repeat(600) + 'a'), 'NVENT_INVALID', /field/)
    await rejects(store.index.increment('k', 'id', 'a..b'), 'NVENT_INVALID', /field/)
    expect((await store.index.read('k', { filter: { n: 1 } })).map(entry => entry.metadata)).toEqual([{ n: 1, version: 0 }])
  })

  it('deletes what is undefined in objects of any class, and writes what has a JSON of its own as that', async () => {
    const { store } = context
    class Patch {
      a = undefined
      inner = { b: undefined, c: 2 }
    }
    await store.index.add('k', 'classes', 1, { a: 1, inner: { b: 1, kept: true }, at: 0 })
    await store.index.update('k', 'classes', Object.assign(new Patch(), { at: new Date(0), n: Object(3) }))
    const { version, ...metadata } = (await store.index.get('k', 'classes'))!.metadata
    expect(version).toBe(1)
    expect(metadata).toEqual({ inner: { c: 2, kept: true }, at: '1970-01-01T00:00:00.000Z', n: 3 })
  })

  it('checks the expected last id on the older surface as well', async () => {
    const { store } = context
    const first = await store.append('older', { type: 'x' }, { expectedLastId: null })
    await rejects(store.append('older', { type: 'x' }, { expectedLastId: null }), 'NVENT_CONFLICT')
    await store.append('older', { type: 'x' }, { expectedLastId: first.id })
    expect(await store.read('older')).toHaveLength(2)
  })

  it('refuses an expected version that is no whole number', async () => {
    await context.store.index.add('k', 'id', 1)
    for (const expectedVersion of [0.9, -0.5, -1]) {
      await rejects(context.store.index.update('k', 'id', { a: 1 }, { expectedVersion }), 'NVENT_INVALID', /expectedVersion/)
    }
    expect(await context.store.index.update('k', 'id', { a: 1 }, { expectedVersion: 0 })).toBe(true)
  })

  it('finds entries by an empty array', async () => {
    const { store } = context
    await store.index.add('k', 'none', 1, { tags: [] })
    await store.index.add('k', 'some', 1, { tags: ['a'] })
    expect((await store.index.read('k', { filter: { tags: [] } })).map(entry => entry.id)).toEqual(['none'])
  })

  it('refuses events without a type', async () => {
    for (const type of [undefined, null, 1, '', {}, []]) await rejects(context.store.append('s', { type } as any), 'NVENT_INVALID', /type/)
    expect(await context.store.read('s')).toEqual([])
  })

  describe.each(noJson)('%s', (_what, value, path) => {
    it('is refused with its path', async () => {
      const { store } = context
      await store.index.add('k', 'id', 1)
      const at = (argument: string): RegExp => new RegExp(`${argument}${path}`.replaceAll(/[.[\]]/g, '\\$&'))
      await rejects(store.append('s', { type: 'x', data: value }), 'NVENT_INVALID', path ? at('event.data') : /event/)
      await rejects(store.kv.set('key', value), 'NVENT_INVALID', at('value'))
      await rejects(store.index.add('k', 'id', 1, value), 'NVENT_INVALID', at('metadata'))
      await rejects(store.index.update('k', 'id', value), 'NVENT_INVALID', at('metadata'))
      await rejects(store.save('c', 'id', value), 'NVENT_INVALID', at('doc'))
      expect(await store.kv.get('key')).toBeNull()
      expect((await store.index.get('k', 'id'))!.metadata).toEqual({ version: 0 })
    })
  })

  it.each([undefined, () => 1, Symbol('s'), 1n].map(value => [shown(value), value] as const))('kv.set refuses %s', async (_what, value) => {
    await rejects(context.store.kv.set('key', value), 'NVENT_INVALID', /value/)
  })

  it.each(odd)('%s become what JSON makes of them', async (_what, value) => {
    const { store } = context
    const expected = throughJson(value)
    const record = await store.append('s', { type: 'x', data: value })
    expect(record.data).toEqual(expected)
    expect((await store.read('s'))[0]!.data).toEqual(expected)
    await store.kv.set('key', value)
    const got = await store.kv.get('key')
    expect(got).toEqual(expected)
    expect(JSON.stringify(got)).toBe(JSON.stringify(expected))
    await store.save('c', 'id', value)
    expect(await store.get('c', 'id')).toEqual(expected)
    await store.index.add('k', 'id', 1, { value })
    expect((await store.index.get('k', 'id'))!.metadata.value).toEqual(expected)
  })

  it('keeps half of a surrogate pair in events and keys, and refuses it in metadata and documents, which it has to look into', async () => {
    const { store } = context
    const value = { text: '\uD800x' }
    expect((await store.append('s', { type: 'x', data: value })).data).toEqual(value)
    await store.kv.set('key', value)
    expect(await store.kv.get('key')).toEqual(value)
    for (const refused of [value, { '\uDC00': 1 }, { deep: [value] }]) {
      await rejects(store.index.add('k', 'id', 1, refused), 'NVENT_INVALID', /metadata/)
      await rejects(store.save('c', 'id', refused), 'NVENT_INVALID', /doc/)
    }
    expect(await store.list('c')).toEqual([])
  })

  it('never lets a key reach a prototype', async () => {
    const { index } = context.store
    await index.add('k', 'id', 1, JSON.parse('{"__proto__.polluted":1,"constructor.prototype.polluted":1}'))
    await index.update('k', 'id', JSON.parse('{"__proto__":{"polluted":2},"constructor":{"prototype":{"polluted":2}}}'))
    await index.increment('k', 'id', '__proto__.polluted')
    await index.increment('k', 'id', 'constructor.prototype.polluted')
    const { metadata } = (await index.get('k', 'id'))!
    expect(Object.getPrototypeOf(metadata)).toBe(Object.prototype)
    expect(metadata.constructor.prototype.polluted).toBe(3)
    expect(Object.getOwnPropertyDescriptor(metadata, '__proto__')!.value).toEqual({ polluted: 3 })
  })

  it('refuses numbers that are none', async () => {
    const { store } = context
    await store.index.add('k', 'id', 1)
    for (const value of noNumbers as any[]) {
      await rejects(store.kv.increment('key', value), 'NVENT_INVALID', /by/)
      await rejects(store.index.increment('k', 'id', 'n', value), 'NVENT_INVALID', /by/)
      await rejects(store.index.add('k', 'id', value), 'NVENT_INVALID', /score/)
      if (value !== null) await rejects(store.kv.set('key', 1, value), 'NVENT_INVALID', /ttl/)
    }
    for (const ttl of [0, -1]) await rejects(store.kv.set('key', 1, ttl), 'NVENT_INVALID', /ttl/)
    await rejects(store.index.add('k', 'id', undefined as any), 'NVENT_INVALID', /score/)
    expect(await store.kv.get('key')).toBeNull()
  })

  it('refuses options of other types and names, and says which are known', async () => {
    const { store } = context
    const bad: Array<[any, RegExp]> = [
      [{ limt: 1 }, /limt.*limit/], [{ limit: '1' }, /limit/], [{ limit: -1 }, /limit/], [{ limit: 1.5 }, /limit/], [{ order: 'up' }, /order/],
      [{ types: 'x' }, /types/], [{ types: [1] }, /types/], [{ from: '0' }, /from/], [{ to: Number.NaN }, /to/], [{ after: 5 }, /after/], ['text', /options/], [[], /options/],
    ]
    for (const [options, message] of bad) await rejects(store.read('s', options), 'NVENT_INVALID', message)
    for (const options of [{ ofset: 1 }, { offset: -1 }, { limit: Number.NaN }, { filter: 'x' }, { filter: [] }] as any[]) {
      await rejects(store.index.read('k', options), 'NVENT_INVALID', /options/)
    }
    for (const options of [{ sort: 'x' }, { sortBy: 1 }, { order: 'up' }, { limit: -1 }] as any[]) await rejects(store.list('c', options), 'NVENT_INVALID', /options/)
    await rejects(store.index.update('k', 'id', {}, { expectedVersion: '0' } as any), 'NVENT_INVALID', /expectedVersion/)
    await rejects(store.stream.append('s', { type: 'x' }, { expectedLastId: 5 } as any), 'NVENT_INVALID', /expectedLastId/)
  })

  it('refuses options that cannot be read', async () => {
    const { store } = context
    for (const opts of unreadable) {
      await rejects(store.read('s', opts), 'NVENT_INVALID', /options/)
      await rejects(store.stream.append('s', { type: 'x' }, opts), 'NVENT_INVALID', /options/)
      await rejects(store.index.read('k', { filter: opts }), 'NVENT_INVALID', /options\.filter/)
      await rejects(store.feed.read(opts), 'NVENT_INVALID', /options/)
      await rejects(store.consume('c', () => {}, opts), 'NVENT_INVALID', /options/)
    }
    expect(await store.read('s')).toEqual([])
  })

  it('refuses handlers that are no functions', async () => {
    for (const handler of [undefined, null, {}, 'text'] as any[]) await rejects(context.store.subscribe('s', handler), 'NVENT_INVALID', /onEvent/)
  })

  it('rejects rather than throws', () => {
    const calls = [() => context.store.append(1 as any, 1 as any), () => context.store.kv.get(1 as any), () => context.store.list({} as any)]
    for (const call of calls) {
      const promise = call()
      expect(promise).toBeInstanceOf(Promise)
      promise.catch(() => {})
    }
  })
}
