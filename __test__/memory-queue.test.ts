import { MemoryQueueAdapter } from 'nvent-native'
import { queueConformance } from './conformance/queue'

queueConformance('memory', async () => ({
  open: options => new MemoryQueueAdapter(options as any),
  dispose: async () => {},
}), { durable: false })
