/** Checks values with a table of options. There is one wording for every caller. */
import { isOption } from './schema.js'
import type { AnySchema, Option, Rule, Schema } from './schema.js'

/** What is wrong with an option: its path as the user wrote it, and why. */
export interface Problem { path: string, why: string }

/**
 * Returns everything that is wrong with `value`. `path` is that of the value itself; where it is empty, paths begin with the
 * option, and the value is called `options`. undefined counts as absent, for groups null too.
 */
export function problemsOf<T, D extends keyof T = never>(path: string, value: unknown, schema: Schema<T, D>): Problem[] {
  const found: Problem[] = []
  checkGroup(path, value, schema as unknown as AnySchema, {}, found)
  return found
}

export const join = (path: string, key: string): string => path === '' ? key : `${path}.${key}`

function checkGroup(path: string, value: unknown, schema: AnySchema, { ignored = [], open = false }: Rule, found: Problem[]): void {
  const given = value ?? {}
  if (typeof given !== 'object' || isArray(given)) {
    found.push({ path: path || 'options', why: `expected an object, got ${describe(given)}` })
    return
  }
  for (const key of Object.keys(given)) {
    if (open || Object.hasOwn(schema, key) || ignored.includes(key)) continue
    found.push({ path: join(path, key), why: `unknown option${didYouMean(key, Object.keys(schema))}` })
  }
  for (const key of Object.keys(schema)) {
    const inner = (given as Record<string, unknown>)[key]
    const node = schema[key]!
    if (inner !== undefined) check(join(path, key), inner, node, found)
    else if (isOption(node) && node.rule.required) found.push({ path: join(path, key), why: 'required' })
  }
}

function check(path: string, value: unknown, node: Option | AnySchema, found: Problem[]): void {
  if (!isOption(node)) {
    checkGroup(path, value, node, {}, found)
    return
  }
  const { kind, rule } = node
  if (value === null && rule.nullable) return
  const wrong = (why: string): void => void found.push({ path, why })
  const unexpected = (): void => wrong(`expected ${expected(node)}, got ${show(value, rule.secret)}`)
  switch (kind) {
    case 'any':
      return
    case 'false':
      return value === false ? undefined : unexpected()
    case 'boolean':
    case 'function':
      return typeof value === kind ? undefined : unexpected()
    case 'signal':
      return value instanceof AbortSignal ? undefined : unexpected()
    case 'string':
      if (typeof value !== 'string' || (rule.filled && value === '')) return unexpected()
      if (!value.isWellFormed()) return wrong('contains half of a surrogate pair, which has no UTF-8')
      if (!rule.values || rule.values.includes(value)) return
      if (rule.hints && Object.hasOwn(rule.hints, value)) return wrong(rule.hints[value]!)
      return wrong(`${show(value)} is not known${didYouMean(value, rule.values)}`)
    case 'number':
      if (rule.endless && value === Infinity) return
      if (typeof value !== 'number' || !Number.isFinite(value) || value < rule.min! || value > rule.max! || (rule.whole && !Number.isInteger(value))) unexpected()
      return
    case 'list':
      if (!isArray(value)) return unexpected()
      if (rule.filled && value.length === 0) return wrong('expected at least one')
      // Holes too, which forEach leaves out.
      for (const [i, item] of value.entries()) check(`${path}[${i}]`, item ?? null, rule.items!, found)
      return
    case 'object':
      if (!isObject(value)) return unexpected()
      for (const method of rule.methods ?? []) {
        const has = (value as Record<string, unknown>)[method]
        if (typeof has !== 'function') found.push({ path: `${path}.${method}`, why: `expected a function, got ${describe(has)}` })
      }
      return
    case 'group':
      if (value === null ? rule.required : !isObject(value)) return unexpected()
      return checkGroup(path, value, rule.options!, rule, found)
    case 'either': {
      const fitting = rule.alternatives!.find(alternative => fits(value, alternative))
      return fitting ? check(path, value, fitting, found) : unexpected()
    }
  }
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !isArray(value)

/** Returns whether a value is of an option's kind, right or wrong. */
function fits(value: unknown, { kind, rule }: Option): boolean {
  switch (kind) {
    case 'any': return true
    case 'false': return value === false
    case 'list': return isArray(value)
    case 'object':
    case 'group': return isObject(value)
    case 'signal': return value instanceof AbortSignal
    case 'either': return rule.alternatives!.some(alternative => fits(value, alternative))
    default: return typeof value === kind
  }
}

/** Returns what an option takes, in words. */
export function expected({ kind, rule }: Option): string {
  switch (kind) {
    case 'false': return 'false'
    case 'boolean': return 'true or false'
    case 'string': return rule.values ? rule.values.map(value => JSON.stringify(value)).join(' or ') : rule.filled ? 'a non-empty string' : 'a string'
    case 'list': return 'an array'
    case 'object':
    case 'group': return 'an object'
    case 'function': return 'a function'
    case 'signal': return 'an AbortSignal'
    case 'either': return rule.alternatives!.map(expected).join(' or ')
    case 'any': return 'a value'
  }
  const what = rule.unit ?? (rule.whole ? 'a whole number' : 'a finite number')
  const from = rule.min! > -Number.MAX_VALUE ? ` from ${rule.min}` : ''
  return `${what}${from}${rule.max! < Number.MAX_SAFE_INTEGER ? ` to ${rule.max}` : ''}`
}

/** Returns whether a value is an array. Unlike Array.isArray it never throws, which that does for a revoked proxy. */
export function isArray(value: unknown): value is unknown[] {
  try {
    return Array.isArray(value)
  }
  catch {
    return false
  }
}

/** Returns what a value is, without the value itself. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (isArray(value)) return 'an array'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

const MAX_SHOWN = 100

function show(value: unknown, isSecret = false): string {
  if (typeof value === 'string' && !isSecret) return JSON.stringify(value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value)
  return (typeof value === 'number' || typeof value === 'boolean') && !isSecret ? String(value) : describe(value)
}

/** Returns the known name that a wrong one most resembles; undefined where none is near. */
export function nearestName(wrong: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map(name => ({ name, distance: distance(wrong.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)
  return best && best.distance <= Math.max(2, wrong.length / 3) ? best.name : undefined
}

/** Returns `; did you mean …? (known: …)`. */
export function didYouMean(wrong: string, known: readonly string[]): string {
  const name = nearestName(wrong, known)
  return `${name === undefined ? '' : `; did you mean ${JSON.stringify(name)}?`} (known: ${known.join(', ') || 'none'})`
}

/** Returns the edits that turn one word into the other (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + Number(a[i - 1] !== b[j - 1]))
    }
    row = next
  }
  return row[b.length]!
}
