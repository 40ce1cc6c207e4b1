/** Options of stores and of their calls. */
import type { AppendOptions, EventIterateOptions, EventReadOptions } from '../types/events'
import type { ConsumeOptions, FeedIterateOptions, FeedReadOptions } from '../types/feed'
import type { RedisConnection } from '../types/redis'
import type { FileStoreOptions, IndexReadOptions, IndexUpdateOptions, ListOptions, RedisStoreOptions, Retention, StoreOptions } from '../types/store'
import { but, either, flag, group, list, number, object, oneOf, oneOrMany, required, signal, text, whole, withDefault } from './schema.js'
import type { Schema } from './schema.js'

const ON_FILE = { backends: ['file'] } as const
const ON_REDIS = { backends: ['redis'] } as const
const DAY = 86_400_000
/** Whole numbers are exact in Lua, too, well beyond it. */
export const MAX_LENGTH = 1e15

export const bus = object<any>(['publish', 'onType'])
export const durability = oneOf(['os', 'disk'], ON_FILE)

export const storeOptions: Schema<StoreOptions> = { bus: but(bus, { nullable: true }) }

export const retention: Schema<Retention> = { maxAgeMs: whole(1, undefined, ON_FILE), maxEventsPerSubject: whole(1, undefined, ON_FILE) }

export const fileStoreOptions: Schema<FileStoreOptions> = {
  ...storeOptions,
  dataDir: required(text({ filled: true, ...ON_FILE })),
  durability,
  readOnly: flag(ON_FILE),
  retention,
}

const secret = { secret: true, ...ON_REDIS } as const
const port = whole(1, 65_535, ON_REDIS)

/** Where Redis is. */
export const redisConnection: Schema<RedisConnection> = {
  url: text(secret),
  host: text(ON_REDIS),
  port,
  username: text(secret),
  password: text(secret),
  db: whole(0, 1_000_000, ON_REDIS),
  tls: either(flag(), group<Exclude<RedisConnection['tls'], boolean | undefined>>({
    ca: oneOrMany(text(secret), secret), cert: text(secret), key: text(secret), servername: text(ON_REDIS), rejectUnauthorized: flag(ON_REDIS),
  }), secret),
  sentinels: list(group<NonNullable<RedisConnection['sentinels']>[number]>({ host: required(text()), port }), { filled: true, ...ON_REDIS }),
  name: text(ON_REDIS),
  sentinelPassword: text(secret),
}

export const trim: Schema<NonNullable<NonNullable<RedisStoreOptions['streams']>['trim']>> = { maxLen: whole(1, MAX_LENGTH, ON_REDIS), approx: flag(ON_REDIS) }

export const redisStoreOptions: Schema<RedisStoreOptions> = {
  ...storeOptions,
  connection: redisConnection,
  prefix: text(ON_REDIS),
  streams: { trim },
}

// Calls.

const filter = object()
const limit = whole()

export const appendOptions: Schema<AppendOptions> = { expectedLastId: text({ filled: true, nullable: true }) }

export const readOptions: Schema<EventReadOptions> = {
  types: list(text()), after: text(), before: text(), from: number(), to: number(), limit, order: oneOf(['asc', 'desc']),
}

export const indexReadOptions: Schema<IndexReadOptions> = {
  cursor: group<NonNullable<IndexReadOptions['cursor']>>({ id: required(text()), score: required(number()) }, { open: true }),
  offset: whole(), limit, filter,
}

export const indexCountOptions: Schema<{ filter?: Record<string, any> }> = { filter }
export const indexUpdateOptions: Schema<IndexUpdateOptions> = { expectedVersion: whole() }

export const listOptions: Schema<ListOptions> = {
  cursor: group<NonNullable<ListOptions['cursor']>>({ id: required(text()), doc: object() }, { open: true }),
  filter, limit, offset: whole(), sortBy: text(), order: oneOf(['asc', 'desc']),
}

const globs = oneOrMany(text())

export const iterateOptions: Schema<EventIterateOptions> = { after: text(), types: list(text()), signal: signal() }
export const feedIterateOptions: Schema<FeedIterateOptions> = { after: text(), subjects: globs, types: globs, signal: signal() }
export const feedReadOptions: Schema<FeedReadOptions, 'limit'> = { after: text(), limit: withDefault(1_000, limit), subjects: globs, types: globs }
export const parkedOptions: Schema<{ limit?: number, after?: string }, 'limit'> = { limit: withDefault(100, limit), after: text() }

export const consumeOptions: Schema<ConsumeOptions, 'attempts' | 'concurrency'> = {
  subjects: globs,
  types: globs,
  from: either(oneOf(['beginning', 'now']), group<{ position: string }>({ position: required(text()) })),
  attempts: withDefault(5, whole(1, 1_000_000)),
  backoff: either(whole(0, DAY), group<Exclude<ConsumeOptions['backoff'], number | undefined>>({
    type: required(oneOf(['fixed', 'exponential'])), delay: required(whole(0, DAY)), maxDelay: whole(0, DAY),
  })),
  concurrency: withDefault(1, whole(1, 10_000)),
  signal: signal(),
}
