import { filterFields } from '../check'

/** Equality per field with the rules of `index.read`: dotted paths, an array for "one of", null for a field that is not there. */
export class Filter {
  private readonly fields: Array<[path: string, wanted: unknown]>

  /** Reads a filter. `what` names it in messages. Throws NVENT_INVALID where it would match more than was meant. */
  constructor(what: string, filter: object) {
    this.fields = filterFields(what, filter)
  }

  matches(object: object): boolean {
    return this.fields.every(([path, wanted]) => {
      const found = at(object, path)
      return Array.isArray(wanted) && !Array.isArray(found) ? wanted.some(one => equal(one, found)) : equal(wanted, found)
    })
  }
}

function at(object: unknown, path: string): unknown {
  let value: unknown = object
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) return null
    value = (value as Record<string, unknown>)[name]
  }
  return value ?? null
}

function equal(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((inner, i) => equal(inner, b[i]))
  }
  const names = Object.keys(a)
  return names.length === Object.keys(b).length
    && names.every(name => Object.hasOwn(b, name) && equal((a as Record<string, unknown>)[name], (b as Record<string, unknown>)[name]))
}
