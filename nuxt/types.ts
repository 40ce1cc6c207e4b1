/** Types that reach the app: the options, and the Nitro hooks. */
import type { Adapters, Wiring, WiringRegistryOptions } from 'nvent-native/native'

export type { ModuleOptions, NventSection } from './options.js'

/** What is open and running once `nvent:adapters:ready` is called. */
export interface ReadyContext extends Adapters {
  wiring: Wiring & { stats(): any }
}

declare module 'nitropack' {
  interface NitroRuntimeHooks {
    /** Runs when nvent asks for adapters. */
    'nvent:register-adapters': () => void | Promise<void>
    /** Runs before the wiring is made: add flows, channels or wirings to its options. */
    'nvent:wiring': (options: WiringRegistryOptions) => void | Promise<void>
    /** Runs when the adapters are open and the wiring runs: the place to register workers. */
    'nvent:adapters:ready': (context: ReadyContext) => void | Promise<void>
  }
}
