import { MemoryStoreAdapter } from 'nvent-native'
import { storeConformance } from './conformance/store'

storeConformance('memory', async () => ({
  open: options => new MemoryStoreAdapter(options),
  dispose: async () => {},
}), { backend: 'memory', sharedNames: false, durable: false })
