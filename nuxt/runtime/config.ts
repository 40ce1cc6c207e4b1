/** The options of a server: what nuxt.config says, with the environment over it, checked as at build time. */
import { NventError } from 'nvent-native/native'
import type { RedisConnection, StreamCoordinatorOptions, WiringRegistryOptions } from 'nvent-native/native'
import { lenient, nearestName, problems, withDefaults, type AdapterPackages, type ModuleOptions, type NventSection } from '../options.js'
import { moduleSchema, nventSchema, packagesSchema, type Group } from '../schema.js'
import { applyEnvironment, unknownVariables, variablesOf, variablesOfConfig } from './environment.js'

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

export interface ServerConfig {
  store: { adapter: string, prefix?: string, redis: RedisConnection, file: NonNullable<NonNullable<NventSection['store']>['file']> & { dataDir: string }, trim?: ModuleOptions['trim'] }
  stream: { adapter: string, prefix?: string, redis: RedisConnection, retain?: ModuleOptions['retain'] }
  queue: { adapter: string, file: { dataDir: string, durability?: 'os' | 'disk' }, defaultJobOptions?: NonNullable<NventSection['queue']>['defaultJobOptions'] }
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
    return [key, lenient(applyEnvironment(section, schema as Group, key, env).section, schema as Group)]
  })) as AdapterPackages

  const section: NventSection = withNvent ? lenient(nvent.section, nventSchema) : nvent.section
  const found = [
    ...problems(options.section, moduleSchema, 'nventNative', name),
    ...problems(section, withNvent ? NVENTS_ADAPTERS : nventSchema, 'nvent', name),
    ...withNvent && options.section.triggers !== undefined ? [`${name('nventNative.triggers')} does not go with nvent: its own triggers are in charge there; remove one of the two`] : [],
    ...withNvent && options.section.webhooks !== undefined ? [`${name('nventNative.webhooks')} does not go with nvent: start createWebhookWiring() in the hook nvent:adapters:ready or a plugin instead`] : [],
  ]
  if (found.length > 0) throw new NventError('NVENT_INVALID', ['wrong options:', ...found].join('\n  - '))
  return derive(options.section, section, packages)
}

/** With nvent the name of an adapter may be that of another package. */
const NVENTS_ADAPTERS = withoutAdapters(nventSchema)

function withoutAdapters(schema: Group): Group {
  return Object.fromEntries(Object.entries(schema).map(([key, inner]) => {
    const { adapter, ...rest } = inner as Group
    return [key, adapter ? { ...rest, adapter: packagesSchema.nventStoreRedis.prefix } : inner]
  }))
}

function derive(options: ModuleOptions, section: NventSection, { nventStoreRedis, nventStreamRedis }: AdapterPackages): ServerConfig {
  const { store, stream, queue, connections, wiring } = section
  const { durability } = options
  const base = connections?.file?.dataDir ?? '.data'
  return {
    store: {
      adapter: store?.adapter ?? 'file',
      prefix: store?.prefix ?? nventStoreRedis?.prefix,
      file: { durability, retention: options.retention, ...store?.file, dataDir: store?.file?.dataDir ?? `${base}/store` },
      redis: mergeConnections(connections?.redis, { ...nventStoreRedis?.connection, ...store?.connection, ...store?.redis }),
      trim: store?.streams?.trim ?? options.trim ?? nventStoreRedis?.streams?.trim,
    },
    stream: {
      adapter: stream?.adapter ?? 'memory',
      prefix: stream?.prefix ?? nventStreamRedis?.prefix,
      redis: mergeConnections(connections?.redis, { ...nventStreamRedis?.connection, ...stream?.connection, ...stream?.redis }),
      retain: stream?.retain ?? options.retain,
    },
    queue: {
      adapter: queue?.adapter ?? 'file',
      file: { durability, ...queue?.file, dataDir: queue?.file?.dataDir ?? `${base}/queue` },
      defaultJobOptions: queue?.defaultJobOptions,
    },
    coordinator: withDefaults({ ...options.coordinator }, wiring?.streamCoordinator ?? {}),
    flow: wiring?.flow,
    replace: options.replace ?? true,
    openTimeout: options.openTimeout ?? OPEN_TIMEOUT,
  }
}

/** Fills in, field by field, what an adapter's own connection leaves open. */
export function mergeConnections(shared: RedisConnection = {}, own: RedisConnection = {}): RedisConnection {
  if (Object.keys(own).length === 0) return shared
  // A url says several fields at once: those that the adapter says itself win over them.
  const { url, ...fields } = { ...fromUrl(shared), ...own }
  if (url === undefined) return fields
  const inUrl = Object.keys(fromUrl({ url }))
  return { url, ...Object.fromEntries(Object.entries(fields).filter(([key]) => key in own || ![...inUrl, 'host', 'port'].includes(key))) }
}

/** Returns the fields of a connection, with those of its url; a url that is none stays. */
function fromUrl({ url, ...fields }: RedisConnection): RedisConnection {
  if (!url) return fields
  let parsed: URL
  try {
    parsed = new URL(url)
  }
  catch {
    return { url, ...fields }
  }
  const { protocol, hostname, port, username, password, pathname } = parsed
  const said = {
    host: hostname.replace(/^\[|\]$/g, '') || undefined,
    port: port ? Number(port) : undefined,
    username: decodeURIComponent(username) || undefined,
    password: decodeURIComponent(password) || undefined,
    db: pathname.length > 1 ? Number(pathname.slice(1)) : undefined,
    tls: protocol === 'rediss:' ? fields.tls ?? true : undefined,
  }
  return { ...fields, ...Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined)) }
}

/** Returns one line for each variable that looks like an option and is none, with the nearest that is. */
export function unknownVariableWarnings(nventConfig: unknown, env: NodeJS.ProcessEnv): string[] {
  const own = [
    ...variablesOf(moduleSchema, 'nventNative').keys(),
    ...variablesOf(nventSchema, 'nvent').keys(),
    ...Object.entries(packagesSchema).flatMap(([key, schema]) => [...variablesOf(schema as Group, key).keys()]),
  ]
  const known = [...own, ...variablesOfConfig(nventConfig, 'NVENT')]
  return unknownVariables(known, env).map((variable) => {
    const name = nearestName(variable.replace(/^(NUXT|NITRO)_/, ''), known)
    return `the variable ${variable} is not an option${name === undefined ? '' : `: did you mean NUXT_${name}?`}`
  })
}
