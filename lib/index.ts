/** The public surface of nvent-native. */
export { createEventBus, getEventBus } from './bus'
export { NventError } from './errors'
export {
  createAdapters, setAdapters, shutdown, shutdownAdapters, useQueueAdapter, useStoreAdapter, useStreamAdapter,
} from './factory'
export { defineFlow } from './flow/define'
export { streamRun } from './flow/run-stream'
export { cancelFlow, deleteRun, retryRun, startFlow } from './flow/runs'
export { metrics } from './metrics'
export { FileQueueAdapter, MemoryQueueAdapter } from './queue'
export { RedisStoreAdapter, RedisStreamAdapter } from './redis'
export { FileStoreAdapter, MemoryStoreAdapter } from './store'
export { isStreamGap, MemoryStreamAdapter } from './stream'
export { createTriggerWiring } from './trigger/wiring'
export { createWebhookWiring } from './webhook/wiring'
export type * from './types'
export { handleWebhook } from './webhook/incoming'
export { createFlowWiring, createStreamCoordinator, createWiringRegistry } from './wiring'
