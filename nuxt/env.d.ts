/// <reference types="@nuxt/nitro-server" />

/** What nvent puts into Nitro's auto-imports; see its adapter packages. */
declare module '#imports' {
  import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'

  export function registerStoreAdapter(name: string, adapter: StoreAdapter): void
  export function registerStreamAdapter(name: string, adapter: StreamAdapter): void
  export function registerQueueAdapter(name: string, adapter: QueueAdapter): void
  export function useStreamAdapter(): StreamAdapter
}
