/** Returns an object nested `levels` deep. */
export function nested(levels: number): any {
  let value: any = 0
  for (let i = 0; i < levels; i++) value = { a: value }
  return value
}

const cyclic: any = { deep: { list: [1] } }
cyclic.deep.list.push(cyclic)

/** Ways in circles double with each level. */
const circles: any = {}
Object.assign(circles, { one: circles, two: circles })

const fail = (): never => { throw new Error('from the proxy') }
/** An object that cannot be looked at. */
export const hostile: any = new Proxy({}, { get: fail, has: fail, ownKeys: fail, getPrototypeOf: fail })
const { proxy: revoked, revoke } = Proxy.revocable<any>({}, {})
revoke()

/** Values that JSON cannot represent, with the path that the error names. */
export const noJson: Array<[what: string, value: any, path: string]> = [
  ['a cycle', cyclic, '.deep.list[1]'],
  ['a BigInt', { list: [{ n: 1n }] }, '.list[0].n'],
  ['circles in circles', circles, '.one'],
  ['a getter that throws', { get bad() { throw new Error('from the getter') } }, ''],
  ['a getter that throws what has no text', { deep: { get bad() { throw Object.create(null) } } }, '.deep.bad'],
  ['a toJSON that throws what has no text', { deep: { toJSON() { throw Object.create(null) } } }, ''],
  ['a proxy that throws', { list: [hostile] }, '.list[0]'],
  ['a revoked proxy', { list: [revoked] }, '.list[0]'],
  ['nesting of 10,000 levels', nested(10_000), ''],
]

class Money {
  constructor(readonly amount: number) {}
  get shown(): string { return `${this.amount} €` }
}

/** Objects that JSON.stringify represents only in part. */
export const odd: Array<[what: string, value: any]> = [
  ['functions', { f: () => 1, list: [() => 1] }],
  ['symbols', { s: Symbol('s'), [Symbol('key')]: 1, list: [Symbol('s')] }],
  ['undefined', { u: undefined, list: [undefined, 1] }],
  ['non-finite numbers', { nan: Number.NaN, inf: [Number.POSITIVE_INFINITY, -0] }],
  ['dates', { at: new Date(86_400_000) }],
  ['maps and sets', { map: new Map([[1, 2]]), set: new Set([1]) }],
  ['instances of classes', { money: new Money(3) }],
  ['toJSON', { own: { toJSON: () => ({ made: 'here' }) } }],
  ['boxed values', { s: new String('x'), n: new Number(1), b: new Boolean(false) }],
  ['buffers', { buffer: Buffer.from('ab'), bytes: new Uint8Array([1, 2]) }],
  ['objects without prototype', Object.assign(Object.create(null), { a: 1 })],
  ['getters', { get computed() { return 5 } }],
  ['sparse arrays', { list: Object.assign([], { 2: 1 }) }],
  ['NUL, quotes and astral text', { '\u0000': '\u0000"\\\u2028', 'ä😀': '😀' }],
  ['keys that prototypes have', JSON.parse('{"constructor":{"prototype":{"polluted":1}},"toString":1,"hasOwnProperty":2}')],
  ['__proto__ as a key', JSON.parse('{"__proto__":{"polluted":true},"deep":{"__proto__":{"polluted":true}}}')],
  ['500 levels', nested(500)],
  ['a megabyte', { text: 'x'.repeat(1_000_000) }],
  ['numbers as keys, in their order', { 2: 'b', 1: 'a', x: 1 }],
]

/** Returns the value after a round trip through JSON. */
export const throughJson = (value: unknown): any => JSON.parse(JSON.stringify(value))

export const noObjects: unknown[] = [undefined, null, 1, 'text', true, [], () => 1, Symbol('s'), 1n, revoked]
export const noStrings: unknown[] = [undefined, null, 1, true, {}, [], () => 1, Symbol('s'), 1n, hostile, revoked]
export const noNames: unknown[] = [...noStrings, '', 'half a pair \uD800', 'x'.repeat(9_000)]
export const noNumbers: unknown[] = [null, '1', true, {}, [], Number.NaN, Number.POSITIVE_INFINITY, 1n]

/** Options that cannot be read. */
export const unreadable: any[] = [hostile, revoked, { get limit() { throw new Error('from the getter') } }, { get limit() { throw Object.create(null) } }]

/** Returns a short form of the value for the title of a test. */
export function shown(value: unknown): string {
  if (typeof value === 'string' && value.length > 20) return `a string of ${value.length}`
  return typeof value === 'object' || typeof value === 'string' ? JSON.stringify(value) : String(value)
}
