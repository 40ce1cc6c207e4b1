/**
 * Without nvent: opens the adapters and the wiring at start, closes them at the end.
 *
 * Nitro does not wait for its plugins, so every request waits here until the adapters are open. Where opening
 * failed (Redis not up yet, an old process still holding the directory), the next request tries again.
 */
import { createAdapters, createWiringRegistry, shutdownAdapters } from 'nvent-native/native'
import type { WiringRegistryOptions } from 'nvent-native/native'
import { defineNitroPlugin, useRuntimeConfig } from 'nitropack/runtime'
import type { NitroApp } from 'nitropack'
import { adaptersFrom, type RuntimeConfig } from './config.js'
import type { ReadyContext } from '../types.js'

export default defineNitroPlugin((nitroApp) => {
  const config = useRuntimeConfig() as unknown as RuntimeConfig
  let opening: Promise<ReadyContext> | undefined
  let closed = false

  const opened = () => opening ??= open(nitroApp, config).catch((error) => {
    opening = undefined
    throw error
  })

  opened().catch(error => console.error('[nvent-native] could not start:', error))
  nitroApp.hooks.hook('request', async () => {
    if (!closed) await opened()
  })
  nitroApp.hooks.hook('close', async () => {
    closed = true
    const running = await opening?.catch(() => undefined)
    if (running) await close(running)
  })
})

async function open(nitroApp: NitroApp, config: RuntimeConfig): Promise<ReadyContext> {
  const adapters = await createAdapters(adaptersFrom(config))
  try {
    const { coordinator, flow } = config.nventNative
    const options: WiringRegistryOptions = { ...adapters, streamCoordinator: coordinator, flow }
    await nitroApp.hooks.callHook('nvent:wiring', options)
    const wiring = createWiringRegistry(options)
    await wiring.start()
    const context = { ...adapters, wiring }
    await nitroApp.hooks.callHook('nvent:adapters:ready', context)
    return context
  }
  catch (error) {
    await shutdownAdapters(adapters)
    throw error
  }
}

/** Jobs under way may still append and publish, so the queue goes first and the store last. */
async function close({ wiring, ...adapters }: ReadyContext) {
  await adapters.queue.close()
  await wiring.stop()
  await shutdownAdapters(adapters)
}
