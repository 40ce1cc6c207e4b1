/** What `append` returns: the record as the store has it, whatever the event is made of. */
import { runInNewContext } from 'node:vm'
import { MemoryStoreAdapter } from 'nvent-native'
import { afterAll, describe, expect, it } from 'vitest'
import { plainEvent } from '../lib/plain'

const store = new MemoryStoreAdapter({ bus: null })
afterAll(() => store.close())

class Money {
  currency = 'EUR'
  constructor(readonly amount: number) {}
}
const deep = (levels: number): unknown => levels === 0 ? 1 : { in: deep(levels - 1) }
const inherited = Object.assign(Object.create({ hidden: 1 }), { own: 2 })
const shared = { list: [1] }
let reads = 0

const values: Array<[what: string, data: unknown, isPlain?: boolean]> = [
  ['nothing', undefined],
  ['numbers that JSON does not have', { nan: Number.NaN, list: [Infinity, -Infinity, -0, 1e21, 5e-324] }],
  ['undefined, functions and symbols', { a: undefined, b: () => 1, c: Symbol('c'), list: [undefined, () => 1, Symbol('d'), null] }],
  // eslint-disable-next-line no-sparse-arrays
  ['an array with holes', { list: [1, , 3] }],
  ['keys that are numbers', { b: 1, 10: 2, 2: 3, a: 4 }],
  ['symbols as keys', { [Symbol('key')]: 1, x: 2 }],
  ['an object without prototype', Object.assign(Object.create(null), { a: [Object.create(null)] })],
  ['a field that cannot be enumerated', Object.defineProperty({ a: 1 }, 'hidden', { value: 2 })],
  ['text with escapes', { text: 'ä"\\\n\u2028\0😀' }],
  ['one object twice', { a: shared, b: [shared, shared] }],
  ['a deep value', deep(200)],
  ['a date', { at: new Date(0) }, false],
  ['an object with a toJSON', { x: { toJSON: () => ({ y: [1] }) } }, false],
  ['an instance', { price: new Money(5) }, false],
  ['an object that inherits', { inherited }, false],
  ['boxed values', { n: Object(1), s: Object('s') }, false],
  ['a map', { map: new Map([[1, 2]]) }, false],
  ['a typed array', { bytes: new Uint8Array([1, 2]) }, false],
  ['a field named __proto__', JSON.parse('{"__proto__":{"a":1},"b":2}'), false],
  ['an object of another realm', runInNewContext('({ a: [1, { b: 2 }] })'), false],
  ['an array of a class', class extends Array {}.from([1, 2]), false],
  ['a long array', Array.from({ length: 20_000 }, (_, i) => i), false],
]

describe('append', () => {
  it.each(values)('returns what JSON makes of %s', async (_, data, isPlain = true) => {
    const event = { runId: 'r', type: 'a', data, last: 1 }
    expect(plainEvent(event) !== undefined).toBe(isPlain)
    const record = await store.append('s', event)
    const { id, ts, ...rest } = record
    expect(Object.keys(record).slice(0, 2)).toEqual(['id', 'ts'])
    expect(JSON.stringify(rest)).toBe(JSON.stringify(event))
    expect(rest).toEqual(JSON.parse(JSON.stringify(event)))
    expect((await store.read('s')).at(-1)).toEqual(record)
    expect({ id: typeof id, ts: typeof ts }).toEqual({ id: 'string', ts: 'number' })
  })

  it.each([{ id: 'mine', ts: 5 }, { id: null }, { ts: undefined }, { id: 1, ts: 'x' }, { id: '1-1' }])('replaces an id and a ts: %j', async (own) => {
    const record = await store.append('own', { ...own, type: 'a', n: 1 } as any)
    expect(record).toEqual({ id: expect.stringMatching(/^\d+-\d+$/), ts: expect.any(Number), type: 'a', n: 1 })
    expect((await store.read('own')).at(-1)).toEqual(record)
  })

  it('shares nothing with what it was given', async () => {
    const event = { type: 'a', data: { list: [{ n: 1 }] } }
    const record = await store.append('shared', event)
    event.data.list[0]!.n = 2
    expect(record.data).toEqual({ list: [{ n: 1 }] })
    record.data.list.push(3)
    expect((await store.read('shared'))[0]!.data).toEqual({ list: [{ n: 1 }] })
  })

  it('reads a getter once', async () => {
    const record = await store.append('getter', { type: 'a', get n() { return ++reads } } as any)
    expect([(record as any).n, reads]).toEqual([1, 1])
    expect((await store.read('getter'))[0]).toEqual(record)
  })

  it.each([
    ['a BigInt', { n: 1n }], ['a circle', (() => { const a: any = { b: [] }; a.b.push(a); return a })()],
    ['circles that branch', (() => { const a: any = {}; a.b = a; a.c = [a, a]; return a })()],
    ['a getter that throws', { get x() { throw new Error('x') } }],
  ])('refuses %s', async (_, data) => {
    await expect(store.append('refused', { type: 'a', data } as any)).rejects.toMatchObject({ code: 'NVENT_INVALID', message: expect.stringContaining('event.data') })
    expect(await store.read('refused')).toEqual([])
  })
})
