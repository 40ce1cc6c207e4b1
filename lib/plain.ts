/** More values than this are left to JSON.stringify, which also finds circles. */
const MAX_VALUES = 10_000
const MAX_DEPTH = 500

/** What JSON text is needed for: an object with a toJSON, of a class, of another realm, a BigInt, and the like. */
const NOT_PLAIN = Symbol('not plain')

/**
 * Returns what JSON.parse(JSON.stringify(value)) returns, without the fields `id` and `ts`, in a fraction of the time. undefined:
 * the value is not made of plain objects, arrays and primitive values only, or is large.
 */
export function plainEvent(value: unknown): Record<string, unknown> | undefined {
  if (typeof value !== 'object' || value === null) return
  let copy: unknown
  try {
    if (Array.isArray(value)) return
    copy = new Copy().of(value, 0)
  }
  catch {
    // A getter or a proxy that throws: its path is found where the JSON is made.
    return
  }
  if (copy === NOT_PLAIN) return
  const event = copy as Record<string, unknown>
  if ('id' in event || 'ts' in event) {
    const { id, ts, ...rest } = event
    return rest
  }
  return event
}

class Copy {
  private values = 0

  of(value: unknown, depth: number): unknown {
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
    return this.object(value as Record<string, unknown>, depth)
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

  private object(value: Record<string, unknown>, depth: number): unknown {
    const copy: Record<string, unknown> = {}
    for (const key of Object.keys(value)) {
      const inner = this.of(value[key], depth + 1)
      // Assigned, `__proto__` would not become a field.
      if (inner === NOT_PLAIN || key === '__proto__') return NOT_PLAIN
      if (inner !== undefined) copy[key] = inner
    }
    return copy
  }
}
