/**
 * The boundary to the addon: JSON text in, JSON text out. What takes longer comes back as an operation's id and completes in a
 * batch. The other side is src/node/bridge.
 */
export { addon } from './addon'
export type { NativeBus, NativeCalendar, NativeConsumer, NativeCoordinator, NativeFlowWiring, NativeHttp, NativeQueue, NativeStore, NativeStream, Reply } from './binding'
export { bridge } from './bridge'
export { flushBuses, flushDeliveries, offDelivery, onAnnouncement, onDelivery } from './deliveries'
export { call, callAndTake, callSync, healthOf, promised, storeCall, storeWrite } from './operations'
export { registerTarget, releaseTarget } from './targets'
import './warnings'
