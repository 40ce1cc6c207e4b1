/** The private runtime config, as build and environment left it. */
import type { AdaptersConfig, RedisConnection, StreamCoordinatorOptions, WiringRegistryOptions } from 'nvent-native/native'
import type { ModuleOptions } from '../options.js'

export interface RuntimeConfig {
  nvent: AdaptersConfig
  nventNative: ModuleOptions & { coordinator: StreamCoordinatorOptions, flow?: WiringRegistryOptions['flow'] }
}

/** nvent's section, filled in with what only ours can say. */
export function adaptersFrom({ nvent, nventNative }: RuntimeConfig): AdaptersConfig {
  const { durability, retain } = nventNative
  return {
    ...nvent,
    store: { ...nvent.store, file: { durability, ...nvent.store?.file }, redis: redisOf(nvent, 'store') },
    stream: { ...nvent.stream, retain: nvent.stream?.retain ?? retain, redis: redisOf(nvent, 'stream') },
  }
}

/** An adapter's own connection, else the shared one. An empty url is one that no variable has set. */
export function redisOf({ connections, ...nvent }: AdaptersConfig, part: 'store' | 'stream'): RedisConnection {
  const { url, ...rest } = nvent[part]?.redis ?? connections?.redis ?? {}
  return url ? { url, ...rest } : rest
}
