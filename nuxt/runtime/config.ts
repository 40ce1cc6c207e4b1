/** The options of a server: what nuxt.config says, with the environment over it, checked as at build time. */
import { NventError } from 'nvent-native/native'
import type { StreamCoordinatorOptions, WiringRegistryOptions } from 'nvent-native/native'
import { adapterOptions, type AdapterOptions } from '../../lib/options/adapters.js'
import { nearestName, problemsOf } from '../../lib/options/check.js'
import { isOption, optionsOf, text, type AnySchema, type Option } from '../../lib/options/schema.js'
import { definedOnly, kindOf, withDefaults, type AdapterPackages, type ModuleOptions, type NventSection } from '../options.js'
import { moduleSchema, nventSchema, packagesSchema } from '../schema.js'
import { applyEnvironment, isBuilt, unknownVariables, variablesOf, variablesOfConfig } from './environment.js'

/** The private runtime config `nventNative`, as the build wrote it. */
export interface BuiltConfig {
  options: ModuleOptions
  /** `nvent` in nuxt.config, as the user wrote it: no default, nothing derived. */
  section: NventSection
  packages: AdapterPackages
  /** nvent itself is installed: its section has options of its own, which it checks. */
  withNvent: boolean
}

/** How long requests wait at the start unless the option says otherwise, in ms. */
export const OPEN_TIMEOUT = 10_000

/** The options of every adapter, those of the wirings, and what only the module has. */
export interface ServerConfig extends AdapterOptions {
  coordinator: StreamCoordinatorOptions
  flow: WiringRegistryOptions['flow']
  replace: boolean
  /** ms */
  openTimeout: number
}

/** Reads the options. Throws NVENT_INVALID with every problem at once. */
export function serverConfig(built: BuiltConfig, env: NodeJS.ProcessEnv = {}): ServerConfig {
  const { withNvent } = built
  const options = applyEnvironment(built.options, moduleSchema, 'nventNative', env)
  const nvent = applyEnvironment(built.section, nventSchema, 'nvent', env)
  const sources = new Map([...options.sources, ...nvent.sources])
  const name = (path: string) => sources.get(path) ?? path
  const packages = Object.fromEntries(Object.entries(packagesSchema).map(([key, schema]) => {
    const section = built.packages[key as keyof AdapterPackages] ?? {}
    return [key, lenient(applyEnvironment(section, schema, key, env).section, schema as AnySchema)]
  })) as AdapterPackages

  const section: NventSection = withNvent ? lenient(nvent.section, nventSchema as AnySchema) : nvent.section
  const found = [
    ...problemsOf('nventNative', options.section, moduleSchema),
    ...problemsOf('nvent', section, (withNvent ? NVENTS_ADAPTERS : nventSchema) as typeof nventSchema),
    ...withNvent && options.section.triggers !== undefined ? [{ path: 'nventNative.triggers', why: 'does not go with nvent: its own triggers are in charge there; remove one of the two' }] : [],
    ...withNvent && options.section.webhooks !== undefined ? [{ path: 'nventNative.webhooks', why: 'does not go with nvent: start createWebhookWiring() in the hook nvent:adapters:ready or a plugin instead' }] : [],
  ].map(({ path, why }) => `${name(path)}: ${why}`)
  if (found.length > 0) throw new NventError('NVENT_INVALID', ['wrong options:', ...found].join('\n  - '))
  return derive(options.section, section, packages)
}

/** Returns the part of `value` that the schema knows, with numbers for numeric text where it takes numbers. */
function lenient(value: unknown, node: Option | AnySchema): any {
  const options = optionsOf(node)
  if (isOption(node) && (!options || kindOf(value) !== 'object')) {
    return takesNumbers(node) && typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value)) ? Number(value) : value
  }
  const known = Object.entries(value as object).filter(([key, inner]) => Object.hasOwn(options!, key) && inner !== undefined && inner !== null)
  return Object.fromEntries(known.map(([key, inner]) => [key, lenient(inner, options![key]!)]))
}

const takesNumbers = (option: Option): boolean => option.kind === 'number' || !!option.rule.alternatives?.some(takesNumbers)

/** With nvent the name of an adapter may be that of another package. */
const NVENTS_ADAPTERS = withoutAdapters(nventSchema as AnySchema)

function withoutAdapters(schema: AnySchema): AnySchema {
  return Object.fromEntries(Object.entries(schema).map(([key, inner]) => {
    const { adapter, ...rest } = inner as AnySchema
    return [key, adapter ? { ...rest, adapter: text() } : inner]
  }))
}

/** Adds what nvent's Redis packages and `nventNative` say to the section; what the section says itself wins. */
function derive(options: ModuleOptions, section: NventSection, { nventStoreRedis, nventStreamRedis }: AdapterPackages): ServerConfig {
  const { store, stream, queue, connections, wiring } = section
  const { durability, retention, retain, trim } = options
  const given = (options: object) => Object.values(options).some(value => value !== undefined) ? definedOnly(options) : undefined
  const merged = {
    connections,
    store: withDefaults(withDefaults({ ...store }, { file: given({ durability, retention }), streams: given({ trim }) }), nventStoreRedis ?? {}),
    stream: withDefaults(withDefaults({ ...stream }, { retain }), nventStreamRedis ?? {}),
    queue: withDefaults({ ...queue }, { file: given({ durability }) }),
  }
  return {
    ...adapterOptions(merged),
    coordinator: withDefaults({ ...options.coordinator }, wiring?.streamCoordinator ?? {}),
    flow: wiring?.flow,
    replace: options.replace ?? true,
    openTimeout: options.openTimeout ?? OPEN_TIMEOUT,
  }
}

/** Returns one line for each variable that looks like an option and is none, with the nearest that is, or that has no effect. */
export function unknownVariableWarnings(nventConfig: unknown, env: NodeJS.ProcessEnv): string[] {
  const own = [
    ...variablesOf(moduleSchema, 'nventNative'),
    ...variablesOf(nventSchema, 'nvent'),
    ...Object.entries(packagesSchema).flatMap(([key, schema]) => [...variablesOf(schema, key)]),
  ]
  const built = new Set(own.flatMap(([variable, { node }]) => isBuilt(node) ? [variable] : []))
  const known = [...own.map(([variable]) => variable), ...variablesOfConfig(nventConfig, 'NVENT')].filter(variable => !built.has(variable))
  return unknownVariables(known, env).map((variable) => {
    const suffix = variable.replace(/^(NUXT|NITRO)_/, '')
    if (built.has(suffix)) return `the variable ${variable} has no effect: the option is read when the app is built, from nuxt.config`
    const name = nearestName(suffix, known)
    return `the variable ${variable} is not an option${name === undefined ? '' : `: did you mean NUXT_${name}?`}`
  })
}
