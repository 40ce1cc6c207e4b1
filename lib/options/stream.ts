/** Options of streams and subscriptions. */
import type { MemoryStreamOptions, MessagesOptions, RedisStreamOptions, SubscribeOptions } from '../types/stream'
import { either, flag, list, object, oneOf, required, signal, text, whole } from './schema.js'
import type { Schema } from './schema.js'
import { MAX_LENGTH, redisConnection } from './store.js'

const ON_REDIS = { backends: ['redis'] } as const

export const memoryStreamOptions: Schema<MemoryStreamOptions> = { retain: { maxEvents: whole(1), maxAgeMs: whole(1) } }

export const retain: Schema<NonNullable<RedisStreamOptions['retain']>> = { topics: required(list(text())), maxLen: whole(1, MAX_LENGTH) }

/** The same in a configuration, where the stream may be in memory. */
export const retainConfig: Schema<Partial<NonNullable<RedisStreamOptions['retain']>>> = { ...retain, topics: list(text()) }

export const redisStreamOptions: Schema<RedisStreamOptions> = {
  connection: redisConnection,
  prefix: text(ON_REDIS),
  retain,
}

export const subscribeOptions: Schema<SubscribeOptions> = {
  group: text({ filled: true }),
  // Of an object the subscription finds out whether it is a RegExp.
  filter: either(text(), object<RegExp>()),
  fromBeginning: flag(),
  ignoreOwn: flag(),
  buffer: whole(1, 10_000_000),
  overflow: oneOf(['drop-oldest', 'drop-newest', 'block']),
  shared: flag(),
}

export const messagesOptions: Schema<MessagesOptions> = { ...subscribeOptions, signal: signal() }
