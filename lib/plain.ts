/** More values than this are left to JSON.stringify, which also finds circles. */
const MAX_VALUES = 10_000
const MAX_DEPTH = 500

/** What JSON text is needed for: an object with a toJSON, of a class, of another realm, a BigInt, and the like. */
const NOT_PLAIN = Symbol('not plain')

/** A copy of an event whose first fields, `id` and `ts`, are to be set. Its JSON has neither until then. */
export type PlainEvent = Record<string, unknown> & { id: string | undefined, ts: number | undefined }

/**
 * Returns what JSON.parse(JSON.stringify(value)) returns, with `id` and `ts` undefined, in a fraction of the time. undefined:
 * the value is not made of plain objects, arrays and primitive values only, or is large.
 */
export function plainEvent(value: unknown): PlainEvent | undefined {
  if (typeof value !== 'object' || value === null) return
  try {
    if (Array.isArray(value)) return
    const event: PlainEvent = { id: undefined, ts: undefined }
    if (new Copy().of(value, 0, event) === NOT_PLAIN) return
    // A store gives both.
    event.id = event.ts = undefined
    return event
  }
  catch {
    // A getter or a proxy that throws: its path is found where the JSON is made.
    return
  }
}

class Copy {
  private values = 0

  /** Returns a copy of a value, or {@link NOT_PLAIN}. The fields of an object are added to `into`. */
  of(value: unknown, depth: number, into?: Record<string, unknown>): unknown {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return value
      case 'number':
        // JSON has no NaN and no infinities, and writes -0 as 0.
        return Number.isFinite(value) ? value + 0 : null
      case 'object':
        break
      case 'bigint':
        return NOT_PLAIN
      default:
        return undefined
    }
    if (value === null) return null
    if (++this.values > MAX_VALUES || depth > MAX_DEPTH || typeof (value as { toJSON?: unknown }).toJSON === 'function') return NOT_PLAIN
    const prototype: unknown = Object.getPrototypeOf(value)
    if (Array.isArray(value)) return prototype === Array.prototype ? this.array(value, depth) : NOT_PLAIN
    if (prototype !== Object.prototype && prototype !== null) return NOT_PLAIN
    return this.object(value as Record<string, unknown>, depth, into ?? {})
  }

  private array(values: unknown[], depth: number): unknown {
    if (values.length > MAX_VALUES) return NOT_PLAIN
    const copy: unknown[] = []
    for (let i = 0; i < values.length; i++) {
      const item = this.of(values[i], depth + 1)
      if (item === NOT_PLAIN) return NOT_PLAIN
      copy.push(item === undefined ? null : item)
    }
    return copy
  }

  private object(value: Record<string, unknown>, depth: number, copy: Record<string, unknown>): unknown {
    for (const key of Object.keys(value)) {
      const inner = this.of(value[key], depth + 1)
      // Assigned, `__proto__` would not become a field.
      if (inner === NOT_PLAIN || key === '__proto__') return NOT_PLAIN
      if (inner !== undefined) copy[key] = inner
    }
    return copy
  }
}
