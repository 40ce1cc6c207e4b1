/**
 * Options from the environment, by the table of options: every option has a variable, whether or not nuxt.config mentions
 * it, and its text becomes what the option takes (`123456` stays text where the option is text).
 */
import { isLeaf, type Group, type Leaf } from '../schema.js'

/** A variable's option: its path below the schema. */
interface Variable { path: string[], schema: Leaf | Group }

/** Prefixes that Nitro reads. */
const PREFIXES = ['NUXT_', 'NITRO_']

/** Returns the variables of a schema by name, without their prefix; groups are taken as JSON. */
export function variablesOf(schema: Group, section: string): Map<string, Variable> {
  const found = new Map<string, Variable>()
  const walk = (at: Leaf | Group, name: string, path: string[]) => {
    found.set(name, { path, schema: at })
    if (isLeaf(at)) return
    for (const [option, inner] of Object.entries(at)) walk(inner, `${name}_${constantCase(option)}`, [...path, option])
  }
  walk(schema, constantCase(section), [])
  return found
}

/** Returns `section` with what the environment sets, and the variable of each path that was set so. */
export function applyEnvironment<T extends object>(section: T, schema: Group, name: string, env: NodeJS.ProcessEnv): { section: T, sources: Map<string, string> } {
  const result = structuredClone(section)
  const sources = new Map<string, string>()
  for (const [suffix, { path, schema: leaf }] of variablesOf(schema, name)) {
    const variable = PREFIXES.map(prefix => prefix + suffix).find(variable => env[variable])
    if (variable === undefined) continue
    const value = read(env[variable]!, leaf)
    if (path.length === 0) Object.assign(result, value)
    else set(result, path, value)
    sources.set([name, ...path].join('.'), variable)
  }
  return { section: result, sources }
}

/** Returns the variables of the environment that look like this package's and are none of `known`. */
export function unknownVariables(known: Iterable<string>, env: NodeJS.ProcessEnv): string[] {
  const names = new Set(known)
  return Object.keys(env).filter((variable) => {
    const prefix = PREFIXES.find(prefix => variable.startsWith(`${prefix}NVENT`))
    return prefix !== undefined && !names.has(variable.slice(prefix.length))
  })
}

/** Returns the variables that Nitro reads for a section of the runtime config. */
export function variablesOfConfig(config: unknown, name: string): string[] {
  if (typeof config !== 'object' || config === null || Array.isArray(config)) return [name]
  return [name, ...Object.entries(config).flatMap(([key, inner]) => variablesOfConfig(inner, `${name}_${constantCase(key)}`))]
}

/** What does not read as the option's kind stays text, and the check names it. */
function read(text: string, schema: Leaf | Group): unknown {
  const kinds = isLeaf(schema) ? schema.kinds : ['object']
  if (kinds.includes('string')) return text
  if (kinds.includes('number') && text.trim() !== '' && Number.isFinite(Number(text))) return Number(text)
  if (kinds.includes('boolean') && /^(true|false|1|0)$/i.test(text)) return /^(true|1)$/i.test(text)
  try {
    return JSON.parse(text)
  }
  catch {
    return kinds.includes('list') ? text.split(',').map(item => item.trim()) : text
  }
}

function set(target: object, path: string[], value: unknown): void {
  const last = path.at(-1)!
  let at = target as Record<string, unknown>
  for (const key of path.slice(0, -1)) {
    if (typeof at[key] !== 'object' || at[key] === null) at[key] = {}
    at = at[key] as Record<string, unknown>
  }
  at[last] = value
}

const constantCase = (name: string) => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase()
