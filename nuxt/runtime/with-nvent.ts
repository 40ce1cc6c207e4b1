/**
 * With nvent: registers the native adapters and runs the native StreamCoordinator beside nvent's own wiring.
 *
 * The adapters open on first use, so those that the app does not choose cost nothing.
 */
import {
  createStreamCoordinator,
  FileQueueAdapter,
  FileStoreAdapter,
  MemoryQueueAdapter,
  MemoryStoreAdapter,
  MemoryStreamAdapter,
  RedisStoreAdapter,
  RedisStreamAdapter,
} from 'nvent-native/native'
import { registerQueueAdapter, registerStoreAdapter, registerStreamAdapter, useStreamAdapter } from '#imports'
import { defineNitroPlugin, useRuntimeConfig } from 'nitropack/runtime'
import { adaptersFrom, type RuntimeConfig } from './config.js'

export default defineNitroPlugin((nitroApp) => {
  const config = useRuntimeConfig() as unknown as RuntimeConfig
  const { replace, coordinator } = config.nventNative
  let close = async () => {}
  let ready = false

  nitroApp.hooks.hook('nvent:register-adapters', () => {
    const { stores, streams, queues } = nativeAdapters(config)
    const names = (backend: string) => replace ? [`native-${backend}`, backend] : [`native-${backend}`]
    for (const [backend, store] of Object.entries(stores)) names(backend).forEach(name => registerStoreAdapter(name, store))
    for (const [backend, stream] of Object.entries(streams)) names(backend).forEach(name => registerStreamAdapter(name, stream))
    for (const [backend, queue] of Object.entries(queues)) names(backend).forEach(name => registerQueueAdapter(name, queue))
    close = async () => {
      await Promise.all(Object.values(queues).map(queue => queue.close()))
      await Promise.all([
        ...Object.values(streams).map(stream => stream.shutdown()),
        ...Object.values(stores).map(store => store.close()),
      ])
    }
  })

  nitroApp.hooks.hook('nvent:adapters:ready', async () => {
    ready = true
    const routing = createStreamCoordinator({ ...coordinator, stream: useStreamAdapter() })
    await routing.start()
    // Hooked only now, so that it runs after nvent has drained its queue. nvent closes no store of its own accord.
    nitroApp.hooks.hook('close', async () => {
      await routing.stop()
      await close()
    })
  })

  // Where nvent failed to start, nothing else would let go of what it had opened.
  nitroApp.hooks.hook('close', async () => {
    if (!ready) await close()
  })
})

function nativeAdapters(config: RuntimeConfig) {
  const { store, stream, queue } = adaptersFrom(config)
  return {
    stores: {
      memory: new MemoryStoreAdapter(),
      file: new FileStoreAdapter({ dataDir: '.data/store', ...store?.file }),
      redis: new RedisStoreAdapter({ connection: store?.redis }),
    },
    streams: {
      memory: new MemoryStreamAdapter({ retain: stream?.retain && { maxEvents: stream.retain.maxLen } }),
      redis: new RedisStreamAdapter({ connection: stream?.redis, retain: stream?.retain }),
    },
    queues: {
      memory: new MemoryQueueAdapter({ defaultJobOptions: queue?.defaultJobOptions }),
      file: new FileQueueAdapter({ dataDir: '.data/queue', ...queue?.file, defaultJobOptions: queue?.defaultJobOptions }),
    },
  }
}
