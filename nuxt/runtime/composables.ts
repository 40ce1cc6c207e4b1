/** Auto-imported on the server where nvent does not bring them. */
export { getEventBus, useQueueAdapter, useStoreAdapter, useStreamAdapter } from 'nvent-native/native'
