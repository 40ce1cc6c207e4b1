import { MemoryQueueAdapter } from 'nvent-native'
import { queueConformance } from './conformance/queue'

queueConformance('memory', async () => ({
  open: options => new MemoryQueueAdapter(options),
  dispose: async () => {},
}), { durable: false })
