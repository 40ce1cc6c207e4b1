/**
 * What options there are and what they take: one table for the constructors, `createAdapters`, the Nuxt module, the environment
 * and docs/options.md. The tables are in the files beside this one; `check.ts` checks values with them.
 */

/** Backends that an option has an effect on. */
export type Backend = 'memory' | 'file' | 'redis'

type Kind = 'boolean' | 'false' | 'string' | 'number' | 'list' | 'object' | 'group' | 'function' | 'signal' | 'either' | 'any'

/** What narrows a kind. */
export interface Rule {
  /** It must be given. */
  required?: boolean
  /** What applies where it is not given, where that is decided in TypeScript. Most defaults are the core's. */
  default?: unknown
  /** Absent: all of them. */
  backends?: readonly Backend[]
  /** No message shows its value. */
  secret?: boolean
  /** Nuxt reads it when the app is built: no variable of the environment sets it. */
  build?: boolean
  /** Another name of an option, which the documentation leaves out. */
  alias?: boolean
  /** null is a value too. */
  nullable?: boolean
  /** Of strings: the only values. */
  values?: readonly string[]
  /** Of strings: what to do instead of some wrong values. */
  hints?: Readonly<Record<string, string>>
  /** Of strings and lists: whether an empty one is refused. */
  filled?: boolean
  /** Of numbers. */
  min?: number
  max?: number
  whole?: boolean
  /** Of numbers: Infinity is a value too. */
  endless?: boolean
  unit?: string
  /** Of lists. */
  items?: Option
  /** Of groups. */
  options?: AnySchema
  /** Of groups: what other packages take and this one ignores. */
  ignored?: readonly string[]
  /** Of groups: further names are fine, and not looked at. */
  open?: boolean
  /** Of objects: methods that they must have. */
  methods?: readonly string[]
  /** Of either: in the order in which they are looked at. */
  alternatives?: readonly Option[]
}

declare const TYPE: unique symbol

/** Whether an option must be given, and what there is where it is not. */
type Presence = 'optional' | 'required' | 'default'

/** An option, or one of a list's items. `T` is the type of its value. */
export class Option<T = any, P extends Presence = Presence> {
  declare readonly [TYPE]?: [(value: T) => T, P]
  constructor(readonly kind: Kind, readonly rule: Rule = {}) {}
}

/** Options by name, as the functions that walk them see them. */
export interface AnySchema { readonly [option: string]: Option | AnySchema }

type Node<T, P extends Presence> = Option<T, P> | ([T] extends [readonly any[] | ((...args: any[]) => unknown)] ? never : [T] extends [object] ? Schema<T> : never)

/**
 * The options of `T`, of which those in `D` have a default. A forgotten one, one that `T` does not have, and one of another type
 * do not compile, at any depth.
 */
export type Schema<T, D extends keyof T = never> = {
  readonly [K in keyof Required<T>]: Node<NonNullable<T[K]>, K extends D ? 'default' : Record<never, never> extends Pick<T, K> ? 'optional' : 'required'>
}

const option = <T>(kind: Kind, rule: Rule, more?: Rule): Option<T, 'optional'> => new Option(kind, { ...rule, ...more })

export const flag = (rule?: Rule): Option<boolean, 'optional'> => option('boolean', {}, rule)
/** Declares an option that is only false. */
export const off = (): Option<false, 'optional'> => option('false', {})
export const text = (rule?: Rule): Option<string, 'optional'> => option('string', {}, rule)
export const oneOf = <const V extends string>(values: readonly V[], rule?: Rule): Option<V, 'optional'> => option('string', { values }, rule)
export const whole = (min = 0, max: number = Number.MAX_SAFE_INTEGER, rule?: Rule): Option<number, 'optional'> => option('number', { min, max, whole: true }, rule)
export const number = (min = -Number.MAX_VALUE, max: number = Number.MAX_VALUE, rule?: Rule): Option<number, 'optional'> => option('number', { min, max }, rule)
/** Declares an option in milliseconds, with fractions. */
export const duration = (min = 0, max: number = Number.MAX_SAFE_INTEGER, rule?: Rule): Option<number, 'optional'> => option('number', { min, max, unit: 'milliseconds' }, rule)
export const list = <I>(items: Option<I, 'optional'>, rule?: Rule): Option<I[], 'optional'> => option('list', { items }, rule)
/** Declares an option that is any object, or one that has these methods. */
export const object = <T = Record<string, any>>(methods?: readonly string[], rule?: Rule): Option<T, 'optional'> => option('object', methods ? { methods } : {}, rule)
export const group = <T>(options: Schema<T>, rule?: Rule): Option<T, 'optional'> => option('group', { options: options as AnySchema }, rule)
export const callback = <T = any>(rule?: Rule): Option<T, 'optional'> => option('function', {}, rule)
export const signal = (): Option<AbortSignal, 'optional'> => option('signal', {})
export const any = <T = any>(rule?: Rule): Option<T, 'optional'> => option('any', {}, rule)
export const either = <A, B>(a: Option<A, 'optional'>, b: Option<B, 'optional'>, rule?: Rule): Option<A | B, 'optional'> => option('either', { alternatives: [a, b] }, rule)
export const oneOrMany = (item: Option<string, 'optional'>, rule?: Rule): Option<string | string[], 'optional'> => either(item, list(item, { filled: true }), rule)
export const required = <T>({ kind, rule }: Option<T, 'optional'>): Option<T, 'required'> => new Option(kind, { ...rule, required: true })
/** Fills in a value where none is given. */
export const withDefault = <T>(value: T, { kind, rule }: Option<T, 'optional'>): Option<T, 'default'> => new Option(kind, { ...rule, default: value })
/** Returns the same option with more rules. */
export const but = <T>({ kind, rule }: Option<T, 'optional'>, more: Rule): Option<T, 'optional'> => new Option(kind, { ...rule, ...more })

export const isOption = (node: Option | AnySchema): node is Option => node instanceof Option
/** Returns the options that a node consists of, in whichever alternative they are. */
export function optionsOf(node: Option | AnySchema): AnySchema | undefined {
  if (!isOption(node)) return node
  return node.rule.options ?? node.rule.alternatives?.map(optionsOf).find(found => found !== undefined)
}
