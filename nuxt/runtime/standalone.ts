/** Without nvent: opens the adapters and the wiring when the server starts, and closes them when it ends. */
import { useRuntimeConfig } from '#imports'
import { triggers } from '#nvent-native/triggers'
import { webhooks } from '#nvent-native/webhooks'
import { createWiringRegistry, setAdapters, shutdownAdapters } from 'nvent-native/native'
import type { Adapters, WiringRegistryOptions } from 'nvent-native/native'
import type { NitroApp } from 'nitropack'
import { memoryAdapters, nativeAdapters } from './adapters.js'
import { serverConfig, unknownVariableWarnings, type BuiltConfig, type ServerConfig } from './config.js'
import { hookLast } from './hooks.js'
import { Startup } from './startup.js'
import type { ReadyContext } from '../types.js'

export default (nitroApp: NitroApp) => {
  // Routes that are rendered during the build get adapters that keep nothing, and no job runs.
  if (import.meta.prerender) return setAdapters(memoryAdapters())
  const { nventNative: built } = useRuntimeConfig() as unknown as { nventNative: BuiltConfig }
  const startup = Startup.current = new Startup(nitroApp, built.options.openTimeout)

  const running = start(nitroApp, built, startup).catch((error) => {
    startup.fail(error)
    return undefined
  })
  hookLast(nitroApp, 'close', async () => {
    startup.close()
    const context = await running
    // Queues drain, wirings drain, then queues, streams and stores close.
    if (context) await shutdownAdapters(context)
  })
}

async function start(nitroApp: NitroApp, built: BuiltConfig, startup: Startup): Promise<ReadyContext> {
  unknownVariableWarnings(built.section, process.env).forEach(warning => console.warn(`[nvent-native] ${warning}`))
  const config = serverConfig(built, process.env)
  startup.openTimeout = config.openTimeout
  const adapters = await startup.open(() => open(config))
  try {
    const context = { ...adapters, wiring: await startWiring(nitroApp, config, adapters) }
    await nitroApp.hooks.callHook('nvent:adapters:ready', context)
    startup.ready()
    return context
  }
  catch (error) {
    await shutdownAdapters(adapters).catch(() => {})
    throw error
  }
}

/** Opens the chosen adapters, all or none. */
async function open(config: ServerConfig): Promise<Adapters> {
  const { stores, streams, queues } = nativeAdapters(config)
  const adapters = { store: stores[config.store.adapter]!(), stream: streams[config.stream.adapter]!(), queue: queues[config.queue.adapter]!() }
  const opened = await Promise.allSettled([adapters.store.init(), adapters.stream.init(), adapters.queue.init()])
  const failed = opened.find(result => result.status === 'rejected')
  if (failed) {
    await shutdownAdapters(adapters).catch(() => {})
    throw failed.reason
  }
  setAdapters(adapters)
  return adapters
}

async function startWiring(nitroApp: NitroApp, { coordinator, flow }: ServerConfig, adapters: Adapters) {
  const options: WiringRegistryOptions = { ...adapters, streamCoordinator: coordinator, flow, ...triggers === undefined ? {} : { triggers }, ...webhooks === undefined ? {} : { webhooks } }
  await nitroApp.hooks.callHook('nvent:wiring', options)
  const wiring = createWiringRegistry(options)
  await wiring.start()
  return wiring
}
