import { options, text } from './check'
import { INSTANCE } from './instance'
import { addon, bridge, call } from './native'
import { redisStoreOptions } from './options/store.js'
import { redisStreamOptions } from './options/stream.js'
import { NventStoreAdapter } from './store'
import { NventStreamAdapter } from './stream'
import type { ParkedEvent, RedisStoreOptions, RedisStreamOptions } from './types'

/** A store on Redis, for apps that outgrow one machine: drop-in beside nvent's own. */
export class RedisStoreAdapter extends NventStoreAdapter {
  /** @internal */
  override readonly isShared = true

  constructor(opts: RedisStoreOptions = {}) {
    const given = options('', opts, redisStoreOptions)
    const { bus: _, ...own } = given
    super('redis', given, bus => addon.NativeStore.redis(bridge, bus, JSON.stringify(own)))
    this.native.setInstance(INSTANCE)
  }
}

/** A stream on Redis: pub/sub, and Redis Streams for the topics that are retained. */
export class RedisStreamAdapter extends NventStreamAdapter {
  constructor(opts: RedisStreamOptions = {}) {
    const own = options('', opts, redisStreamOptions)
    super('redis', () => addon.NativeStream.redis(bridge, JSON.stringify(own)))
  }

  /** Returns what a group failed at too often on a topic, oldest first. */
  async parked(topic: string, group: string): Promise<ParkedEvent[]> {
    return call(() => this.native.parked(text('topic', topic), text('group', group)))
  }

  /** Publishes what is parked again, to all that are subscribed, and no longer keeps it as parked. Returns the number of events, at most 1,000 a call. */
  async replayParked(topic: string, group: string): Promise<number> {
    return call(() => this.native.replayParked(text('topic', topic), text('group', group)))
  }
}
