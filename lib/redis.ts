import { options, text } from './check'
import { invalid } from './errors'
import { INSTANCE } from './instance'
import { addon, bridge, call } from './native'
import { NventStoreAdapter } from './store'
import { NventStreamAdapter } from './stream'
import type { ParkedEvent, RedisConnection, RedisStoreOptions, RedisStreamOptions } from './types'

const CONNECTION = {
  url: 'string', host: 'string', port: 'number', username: 'string', password: 'string', db: 'number', tls: ['boolean', 'object'],
  sentinels: 'array', name: 'string', sentinelPassword: 'string',
} as const
const TLS = { ca: ['string', 'array'], cert: 'string', key: 'string', servername: 'string', rejectUnauthorized: 'boolean' } as const

/** Checks where Redis is. No message ever quotes a value of it. */
export function checkConnection(what: string, connection: RedisConnection | undefined): RedisConnection {
  const given = options(what, connection, CONNECTION as any)
  const { tls, sentinels } = given
  if (typeof tls === 'object') {
    const { ca } = options(`${what}.tls`, tls, TLS as any)
    if (Array.isArray(ca)) ca.forEach((one, i) => text(`${what}.tls.ca[${i}]`, one))
  }
  if (Array.isArray(sentinels)) {
    if (sentinels.length === 0) throw invalid(`${what}.sentinels: expected at least one sentinel`)
    sentinels.forEach((sentinel, i) => {
      const { host } = options(`${what}.sentinels[${i}]`, sentinel, { host: 'string', port: 'number' })
      text(`${what}.sentinels[${i}].host`, host)
    })
  }
  return given
}

/** A store on Redis, for apps that outgrow one machine: drop-in beside nvent's own. */
export class RedisStoreAdapter extends NventStoreAdapter {
  constructor(opts: RedisStoreOptions = {}) {
    const { connection, prefix, streams } = options('options', opts, {
      bus: ['object', 'any'], connection: 'object', prefix: 'string', streams: 'object',
    })
    const { trim } = options('options.streams', streams, { trim: 'object' })
    const settings = JSON.stringify({
      connection: checkConnection('options.connection', connection),
      prefix,
      trim: options('options.streams.trim', trim, { maxLen: 'number', approx: 'boolean' }),
    })
    super('redis', opts, bus => addon.NativeStore.redis(bridge, bus, settings))
    this.native.setInstance(INSTANCE)
  }
}

/** A stream on Redis: pub/sub, and Redis Streams for the topics that are retained. */
export class RedisStreamAdapter extends NventStreamAdapter {
  constructor(opts: RedisStreamOptions = {}) {
    const { connection, prefix, retain } = options('options', opts, { connection: 'object', prefix: 'string', retain: 'object' })
    if (retain !== undefined) {
      const { topics } = options('options.retain', retain, { topics: 'array', maxLen: 'number' })
      if (topics === undefined) throw invalid('options.retain.topics is missing: the topics (globs) to keep')
      topics.forEach((topic: unknown, i: number) => text(`options.retain.topics[${i}]`, topic))
    }
    const settings = JSON.stringify({ connection: checkConnection('options.connection', connection), prefix, retain })
    super('redis', () => addon.NativeStream.redis(bridge, settings))
  }

  /** What a group failed at too often on a topic, oldest first. */
  async parked(topic: string, group: string): Promise<ParkedEvent[]> {
    return call(() => this.native.parked(text('topic', topic), text('group', group)))
  }

  /** Publishes what is parked again, to all that are subscribed, and no longer keeps it as parked. The number of events, at most 1,000 a call. */
  async replayParked(topic: string, group: string): Promise<number> {
    return call(() => this.native.replayParked(text('topic', topic), text('group', group)))
  }
}
