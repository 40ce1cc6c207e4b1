/** A value for every option of a table, and the variable of the environment that sets it. */
import { isOption, optionsOf, type AnySchema, type Option } from '../../dist/lib/options/schema.js'
import { isBuilt, variablesOf } from '../../dist/nuxt/runtime/environment.js'

export interface Setting {
  section: string
  /** Below the section. */
  path: string
  /** The last part of the path. */
  name: string
  variable: string
  /** The variables that make the section `value`: that of the option, and of the group where others must be there too. */
  env: Record<string, string>
  value: any
  /** The section with another value, where there is one. */
  other: any
  /** The section with the option misspelt. */
  misspelt: any
  /** A text that is wrong for it, where there is one and no other variable replaces it. */
  wrong: string | undefined
  isBuilt: boolean
}

/** Returns texts of the environment and what they are read as. */
function samples({ kind, rule }: Option): Array<[text: string, value: unknown]> {
  const { values, min = 0, max = 0, alternatives, items, options } = rule
  const json = (value: unknown): [string, unknown] => [JSON.stringify(value), value]
  const all: Array<[string, unknown]> = {
    'string': () => (values ?? ['123456', 'other']).map((value): [string, string] => [value, value]),
    'number': () => max <= 1 ? [json(0.5), json(0.25)] : [json(Math.max(min, 0) + 5), json(Math.max(min, 0) + 6)],
    'boolean': () => [json(true), json(false)],
    'false': () => [json(false)],
    'list': (): Array<[string, unknown]> => items!.kind === 'string' ? [['a, b', ['a', 'b']], json(['c'])] : [json([samples(items!)[0]![1]])],
    'object': () => [json({ a: 1 }), json({ a: 2 })],
    'group': () => [json(needed(options!))],
    'either': () => alternatives!.flatMap(samples).slice(0, 2),
    'any': () => [],
    'function': () => [],
    'signal': () => [],
  }[kind]()
  return all.filter(([, value]) => value !== rule.default)
}

/** Returns a value for what a group must have. */
const needed = (options: AnySchema): Record<string, unknown> => Object.fromEntries(Object.entries(options)
  .flatMap(([name, option]) => isOption(option) && option.rule.required ? [[name, samples(option)[0]![1]]] : []))

const at = (path: string[], value: unknown): any => path.reduceRight((inner, name) => ({ [name]: inner }), value)

/** Any text is right for an option that takes text. */
const takesText = ({ kind, rule }: Option): boolean =>
  (kind === 'string' && !rule.values) || kind === 'list' || !!rule.alternatives?.some(takesText)

/** Returns every option of a section that can be set by itself. */
export function settings(section: string, schema: unknown): Setting[] {
  return [...variablesOf(schema, section)].flatMap(([suffix, { path, node }]) => {
    if (!isOption(node) || node.kind === 'group') return []
    const [first, second] = samples(node)
    if (!first) return []
    const above = path.slice(0, -1)
    const name = path.at(-1)!
    const group = above.reduce<Option | AnySchema>((within, key) => optionsOf(within)![key]!, schema as AnySchema)
    const beside = needed(optionsOf(group)!)
    const variable = `NUXT_${suffix}`
    const groupVariable = [...variablesOf(schema, section)].find(([, { path }]) => path.join('.') === above.join('.'))![0]
    return [{
      section, path: path.join('.'), name, variable, isBuilt: isBuilt(node),
      env: { ...Object.keys(beside).length > 0 ? { [`NUXT_${groupVariable}`]: JSON.stringify(beside) } : {}, [variable]: first[0] },
      value: at(above, { ...beside, [name]: first[1] }),
      other: second && at(above, { ...beside, [name]: second[1] }),
      misspelt: at(above, { ...beside, [`${name}x`]: first[1] }),
      wrong: takesText(node) || optionsOf(node) ? undefined : 'wrong!',
    }]
  })
}
