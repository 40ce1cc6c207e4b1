/**
 * Options from the environment, by the table of options: every option has a variable, whether or not nuxt.config mentions
 * it, and its text becomes what the option takes (`123456` stays text where the option is text).
 */
import { isOption, optionsOf, type AnySchema, type Option } from '../../lib/options/schema.js'

/** A variable's option: its path below the schema. */
interface Variable { path: string[], node: Option | AnySchema }

/** Prefixes that Nitro reads. */
const PREFIXES = ['NUXT_', 'NITRO_']

/** Returns the variables of a schema by name, without their prefix; groups are taken as JSON. */
export function variablesOf(schema: unknown, section: string): Map<string, Variable> {
  const found = new Map<string, Variable>()
  const walk = (node: Option | AnySchema, name: string, path: string[]) => {
    found.set(name, { path, node })
    for (const [option, inner] of Object.entries(optionsOf(node) ?? {})) walk(inner, `${name}_${constantCase(option)}`, [...path, option])
  }
  walk(schema as AnySchema, constantCase(section), [])
  return found
}

/** Returns `section` with what the environment sets, and the variable of each path that was set so. */
export function applyEnvironment<T extends object>(section: T, schema: unknown, name: string, env: NodeJS.ProcessEnv): { section: T, sources: Map<string, string> } {
  const result = structuredClone(section)
  const sources = new Map<string, string>()
  for (const [suffix, { path, node }] of variablesOf(schema, name)) {
    if (isBuilt(node)) continue
    const variable = PREFIXES.map(prefix => prefix + suffix).find(variable => env[variable])
    if (variable === undefined) continue
    const value = read(env[variable]!, node)
    if (path.length === 0) Object.assign(result, value)
    else set(result, path, value)
    sources.set([name, ...path].join('.'), variable)
  }
  return { section: result, sources }
}

/** Returns whether an option, or all of a group, is read when the app is built. */
export function isBuilt(node: Option | AnySchema): boolean {
  if (isOption(node)) return node.rule.build === true
  return Object.values(node).every(isBuilt)
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

/** Returns the kinds that an option takes. */
const kindsOf = (node: Option | AnySchema): string[] =>
  isOption(node) ? node.rule.alternatives?.flatMap(kindsOf) ?? [node.kind] : ['group']

/** Reads the text of a variable. What does not read as the option's kind stays text, and the check names it. */
function read(text: string, node: Option | AnySchema): unknown {
  const kinds = kindsOf(node)
  const isJson = kinds.includes('list') && text.startsWith('[') || kinds.includes('group') && text.startsWith('{')
  if (kinds.includes('string') && !isJson) return text
  if (kinds.includes('number') && text.trim() !== '' && Number.isFinite(Number(text))) return Number(text)
  if ((kinds.includes('boolean') || kinds.includes('false')) && /^(true|false|1|0)$/i.test(text)) return /^(true|1)$/i.test(text)
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
