/**
 * One table of the options: which there are, what values they take, and how a variable of the environment is read.
 * The build and the start of a server check with it.
 */
import type { JobOptions, RedisConnection, StreamCoordinatorOptions } from 'nvent-native/native'
import type { AdapterPackages, ModuleOptions, NventSection } from './options.js'

type Kind = 'string' | 'number' | 'boolean' | 'list' | 'object' | 'any'

export class Leaf {
  constructor(readonly kinds: readonly Kind[], readonly rule: { values?: readonly string[], min?: number, max?: number } = {}) {}
}
export interface Group { readonly [option: string]: Leaf | Group }

/** A schema for `T`: a forgotten key, and one that `T` does not have, do not compile, at any depth. */
type SchemaOf<T> = Leaf | (T extends readonly unknown[] | ((...args: never[]) => unknown) | string | number | boolean ? never : {
  readonly [K in keyof Required<T>]: SchemaOf<NonNullable<T[K]>>
})

const text = new Leaf(['string'])
const flag = new Leaf(['boolean'])
const list = new Leaf(['list'])
const any = new Leaf(['any'])
const number = (min = 0, max = Number.MAX_SAFE_INTEGER) => new Leaf(['number'], { min, max })
const choice = (...values: string[]) => new Leaf(['string'], { values })

const redis = {
  url: text, host: text, port: number(1, 65_535), username: text, password: text, db: number(), tls: new Leaf(['boolean', 'object']),
  sentinels: list, name: text, sentinelPassword: text,
} satisfies SchemaOf<RedisConnection>

const durability = choice('os', 'disk')
const retain = { topics: list, maxLen: number(1) }
const trim = { maxLen: number(1), approx: flag }
const retention = { maxAgeMs: number(1), maxEventsPerSubject: number(1) }

const jobOptions = {
  jobId: text, attempts: number(), backoff: any, delay: number(), priority: number(), lifo: flag, timeout: number(1),
  removeOnComplete: any, removeOnFail: any, traceparent: text,
} satisfies SchemaOf<JobOptions>

export const coordinator = {
  enableStoreSync: flag, enableFlowEvents: flag, enableClientMessages: flag, channels: list, flowEventTypes: list, instanceId: text,
  delivery: choice('at-least-once', 'at-most-once'), consumer: text,
} satisfies SchemaOf<StreamCoordinatorOptions>

/** `nventNative` in nuxt.config. */
export const moduleSchema = {
  replace: flag, durability, retain, coordinator, openTimeout: number(), retention, trim, realtime: { path: text, authorize: text },
  metrics: new Leaf(['boolean', 'object']),
  triggers: text,
  webhooks: text,
  inspector: new Leaf(['boolean', 'object']),
} satisfies SchemaOf<ModuleOptions>

/** `nvent` in nuxt.config. */
export const nventSchema = {
  store: {
    adapter: choice('memory', 'file', 'redis'), prefix: text, file: { dataDir: text, durability, retention }, redis, connection: redis, streams: { trim },
  },
  stream: { adapter: choice('memory', 'redis'), prefix: text, redis, connection: redis, retain },
  queue: { adapter: choice('memory', 'file'), file: { dataDir: text, durability }, defaultJobOptions: jobOptions },
  connections: { redis, file: { dataDir: text } },
  wiring: { streamCoordinator: coordinator, flow: any },
} satisfies SchemaOf<NventSection>

/** The sections of nvent's Redis packages. */
export const packagesSchema = {
  nventStoreRedis: { connection: redis, prefix: text, streams: { trim } },
  nventStreamRedis: { connection: redis, prefix: text },
} satisfies SchemaOf<AdapterPackages>

export const isLeaf = (schema: Leaf | Group): schema is Leaf => schema instanceof Leaf
