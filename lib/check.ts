/** Checks arguments before they cross the boundary, where only text and numbers go. */
import { invalid, messageOf, NventError } from './errors'
import { describe, didYouMean, isArray, problemsOf } from './options/check.js'
import type { Problem } from './options/check.js'
import { isOption } from './options/schema.js'
import type { AnySchema, Schema } from './options/schema.js'

export { didYouMean, isArray }

/** Returns the fields of an object. Throws NVENT_INVALID where they cannot be read: a getter or a proxy may throw anything. */
export function fields(what: string, value: object): Array<[name: string, value: unknown]> {
  try {
    return Object.entries(value)
  }
  catch (cause) {
    throw invalid(`${what}: cannot be read (${messageOf(cause)})`, cause)
  }
}

/**
 * Returns the fields of a filter. Throws NVENT_INVALID for what JSON leaves out (undefined, a function, a symbol, the entries of a
 * Map), because the rest selects more than was meant, in the end everything.
 */
export function filterFields(what: string, filter: object): Array<[field: string, value: unknown]> {
  const found = fields(what, filter)
  if (found.length === 0 && !isPlain(filter)) throw invalid(`${what}: expected the fields to select by as properties of an object`)
  for (const [field, value] of found) {
    for (const wanted of isArray(value) ? [...value] : [value]) {
      if (hasJson(wanted)) continue
      const given = wanted === undefined ? 'undefined' : `${describe(wanted)} has no JSON and`
      throw invalid(`${what}.${field}: ${given} would select every value; leave the field out, or use null for what is without it`)
    }
  }
  return found
}

function hasJson(value: unknown): boolean {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return true
  try {
    return JSON.stringify(value) !== undefined
  }
  catch {
    // What keeps it from having any is reported where the JSON is made.
    return true
  }
}

/** Returns whether an object is of no class, in whichever realm. */
function isPlain(value: object): boolean {
  try {
    const prototype: unknown = Object.getPrototypeOf(value)
    return prototype === null || Object.getPrototypeOf(prototype) === null
  }
  catch {
    return false
  }
}

/** Returns a string that UTF-8 can carry, or throws NVENT_INVALID. The core checks whether it is empty or too long. */
export function text(what: string, value: unknown): string {
  if (typeof value !== 'string') throw invalid(`${what}: expected a non-empty string, got ${describe(value)}`)
  if (!value.isWellFormed()) throw invalid(`${what}: contains half of a surrogate pair, which has no UTF-8`)
  return value
}

export function finite(what: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalid(`${what}: expected a finite number, got ${typeof value === 'number' ? value : describe(value)}`)
  }
  return value
}

export function callback<T>(what: string, value: T): T {
  if (typeof value !== 'function') throw invalid(`${what}: expected a function, got ${describe(value)}`)
  return value
}

export function object(what: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || isArray(value)) {
    throw invalid(`${what}: expected an object, got ${describe(value)}`)
  }
  return value as Record<string, unknown>
}

/** What a table of options says about absent ones. */
interface Absent { defaults: Array<[option: string, value: unknown]>, isAnyRequired: boolean }

const absent = new WeakMap<object, Absent>()

function absentOf(schema: object): Absent {
  let found = absent.get(schema)
  if (!found) {
    const rules = Object.entries(schema as AnySchema).flatMap(([name, option]) => isOption(option) ? [[name, option.rule] as const] : [])
    found = {
      defaults: rules.flatMap(([name, rule]) => rule.default === undefined ? [] : [[name, rule.default]]),
      isAnyRequired: rules.some(([, rule]) => rule.required),
    }
    absent.set(schema, found)
  }
  return found
}

/**
 * Returns options, with the defaults of their table filled in; undefined and null count as none. Throws NVENT_INVALID for the
 * first one that is wrong. `at` is the name of the argument; empty where the options are the only argument, so that paths begin
 * with the option, as the user wrote it.
 */
export function options<T, D extends keyof T = never>(at: string, value: unknown, schema: Schema<T, D>): T & { [K in D]-?: NonNullable<T[K]> } {
  const { defaults, isAnyRequired } = absentOf(schema)
  if (isAnyRequired || (value !== undefined && value !== null)) {
    const [problem] = problemsIn(at, value, schema)
    if (problem) throw invalid(`${problem.path}: ${problem.why}`)
  }
  const given: any = value ?? {}
  if (!defaults.some(([name]) => given[name] === undefined)) return given
  const filled = { ...given }
  for (const [name, byDefault] of defaults) filled[name] ??= byDefault
  return filled
}

function problemsIn<T, D extends keyof T>(at: string, value: unknown, schema: Schema<T, D>): Problem[] {
  try {
    return problemsOf(at, value, schema)
  }
  catch (cause) {
    // A getter or a proxy that throws.
    return [{ path: at || 'options', why: `cannot be read (${messageOf(cause)})` }]
  }
}

/** Throws NVENT_INVALID for what is no Request. Those of other realms and implementations are. */
export function request(what: string, value: unknown): void {
  const { headers, url } = object(what, value) as Partial<Request>
  if (typeof headers?.get !== 'function' || typeof url !== 'string') throw invalid(`${what}: expected a Request`)
}

/** Returns what a map has under a name. Throws NVENT_NOT_FOUND with the nearest name. */
export function named<T>(kind: string, what: string, name: string, known: ReadonlyMap<string, T>): T {
  const found = known.get(text(what, name))
  if (found === undefined) throw new NventError('NVENT_NOT_FOUND', `there is no ${kind} ${JSON.stringify(name)}${didYouMean(name, [...known.keys()])}`)
  return found
}

/** Returns the JSON of a value, as JSON.stringify makes it. Throws NVENT_INVALID with the path of what has none. */
export function json(what: string, value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  }
  catch (cause) {
    const found = culprit(what, value, [])
    throw invalid(`${found?.path ?? what}: ${found?.why ?? `cannot be written as JSON (${messageOf(cause)})`}`, cause)
  }
  if (text === undefined) throw invalid(`${what}: ${describe(value)} has no JSON`)
  return text
}

/** Returns the JSON of an object. Throws NVENT_INVALID for anything else. */
export function jsonObject(what: string, value: unknown): string {
  object(what, value)
  const text = json(what, value)
  if (text[0] !== '{') throw invalid(`${what}: expected an object, and its toJSON returns something else`)
  return text
}

/** Returns the JSON of an object, with undefined written as null: in an update both delete. */
export function jsonPatch(what: string, value: unknown): string {
  object(what, value)
  let patch: unknown
  try {
    patch = withNulls(value, new Set())
  }
  catch {
    // A getter that throws: jsonObject reports its path.
    patch = value
  }
  return jsonObject(what, patch)
}

function withNulls(value: unknown, above: Set<unknown>): unknown {
  // What is deeper than any accepted value, or contains itself, is left to JSON.stringify and to the core, which say what is wrong with it.
  if (typeof value !== 'object' || value === null || above.size > 600 || above.has(value)) return value
  // An array replaces what is there. What has a JSON of its own, a date say, is written as that.
  if (Array.isArray(value) || typeof (value as { toJSON?: unknown }).toJSON === 'function' || isBoxed(value)) return value
  let copy: Record<string, unknown> | undefined
  above.add(value)
  for (const [key, inner] of Object.entries(value)) {
    const kept = inner === undefined ? null : withNulls(inner, above)
    if (kept === inner) continue
    copy ??= Object.assign(Object.create(null), value) as Record<string, unknown>
    copy[key] = kept
  }
  above.delete(value)
  return copy ?? value
}

/** Returns whether JSON.stringify writes an object as a primitive value. */
const isBoxed = (value: object): boolean => value instanceof Number || value instanceof String || value instanceof Boolean || value instanceof BigInt

/** Finds what keeps a value from having JSON. */
function culprit(path: string, value: unknown, above: unknown[]): { path: string, why: string } | undefined {
  if (typeof value === 'bigint') return { path, why: 'a BigInt has no JSON; make it a string' }
  if (typeof value !== 'object' || value === null) return
  if (above.includes(value)) return { path, why: 'refers back to something that contains it' }
  if (above.length > 600) return { path, why: 'is nested too deeply' }
  let keys: string[]
  try {
    keys = Object.keys(value)
  }
  catch (error) {
    return { path, why: `its fields cannot be read (${messageOf(error)})` }
  }
  for (const key of keys) {
    const at = Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`
    let inner: unknown
    try {
      inner = (value as Record<string, unknown>)[key]
    }
    catch (error) {
      return { path: at, why: `its getter throws (${messageOf(error)})` }
    }
    const found = culprit(at, inner, [...above, value])
    if (found) return found
  }
  return undefined
}
