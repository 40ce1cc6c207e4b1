/** The options in nuxt.config: those of the adapters and wirings, as everywhere, and the module's own. */
import { adaptersOptions } from '../lib/options/adapters.js'
import { either, flag, group, off, text, whole, withDefault, type Schema } from '../lib/options/schema.js'
import { durability, redisConnection, redisStoreOptions, retention, trim } from '../lib/options/store.js'
import { redisStreamOptions, retainConfig } from '../lib/options/stream.js'
import { coordinatorOptions, flowData } from '../lib/options/wiring.js'
import type { AdapterPackages, ModuleOptions, NventSection } from './options.js'

const BUILD = { build: true } as const
const behindFile = either(flag(BUILD), group<{ authorize?: string }>({ authorize: text(BUILD) }), BUILD)

/** `nventNative` in nuxt.config. */
export const moduleSchema: Schema<ModuleOptions, 'replace' | 'openTimeout'> = {
  replace: withDefault(true, flag()),
  durability,
  retain: retainConfig,
  coordinator: coordinatorOptions,
  openTimeout: withDefault(10_000, whole()),
  retention: retention,
  trim: trim,
  realtime: { path: text(BUILD), authorize: text(BUILD) },
  metrics: behindFile,
  triggers: text(BUILD),
  webhooks: text(BUILD),
  inspector: behindFile,
}

/** `nvent` in nuxt.config. */
export const nventSchema: Schema<NventSection> = {
  ...adaptersOptions,
  wiring: { streamCoordinator: coordinatorOptions, flow: either(off(), group<Exclude<NonNullable<NventSection['wiring']>['flow'], false | undefined>>(flowData)) },
}

const { prefix, streams } = redisStoreOptions

/** The sections of nvent's Redis packages. */
export const packagesSchema: Schema<AdapterPackages> = {
  nventStoreRedis: { connection: redisConnection, prefix, streams },
  nventStreamRedis: { connection: redisConnection, prefix: redisStreamOptions.prefix },
}
