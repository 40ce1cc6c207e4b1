import type { QueueAdapter, StoreAdapter, StreamAdapter } from './types'

/** A wiring that is running, and the adapters that it uses. */
export interface Running {
  stop: () => Promise<void>
  store?: StoreAdapter | undefined
  stream?: StreamAdapter | undefined
  queue?: QueueAdapter | undefined
}

const key = Symbol.for('nvent-native.running')
const shared = globalThis as { [key]?: Set<Running> }
/** The running wirings of this JavaScript environment in the order of their starts, however often the package was loaded. */
export const running = shared[key] ??= new Set<Running>()
