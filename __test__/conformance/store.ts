import { describe } from 'vitest'
import type { StoreAdapter, StoreOptions } from 'nvent-native'
import { freshEnvironments } from './environment'
import type { Environment } from './environment'
import { consumers } from './store-consumers'
import { documents } from './store-documents'
import { events } from './store-events'
import { indexes } from './store-index'
import { badInput } from './store-input'
import { iteration } from './store-iterate'
import { keys } from './store-kv'
import { lifecycle } from './store-lifecycle'
import { pages } from './store-pages'

/** Where data is kept. */
type StoreEnvironment = Environment<StoreAdapter, StoreOptions>

/** What backends differ in. Each answer is tested, the noes too. */
export interface StoreCapabilities {
  backend: 'memory' | 'file' | 'redis'
  /** Events, keys and indexes share one space of names: a name means one of them. */
  sharedNames: boolean
  /** A later adapter in the same environment finds what an earlier one wrote. */
  durable: boolean
}

export interface StoreContext {
  readonly store: StoreAdapter
  /** A further adapter, closed after the test. */
  readonly another: (options?: StoreOptions) => StoreAdapter
  readonly capabilities: StoreCapabilities
}

/** The contract of a store. Every backend's test calls it with a way to make environments. */
export function storeConformance(name: string, factory: () => Promise<StoreEnvironment>, capabilities: StoreCapabilities): void {
  describe(`store: ${name}`, () => {
    const { first, another } = freshEnvironments<StoreAdapter, StoreOptions>(factory, adapter => adapter.close(), { bus: null })
    const context: StoreContext = {
      get store() { return first() },
      another,
      capabilities,
    }

    describe('events', () => events(context))
    describe('iteration', () => iteration(context))
    describe('consumers', () => consumers(context))
    describe('keys', () => keys(context))
    describe('indexes', () => indexes(context))
    describe('pages', () => pages(context))
    describe('documents', () => documents(context))
    describe('bad input', () => badInput(context))
    describe('life cycle', () => lifecycle(context))
  })
}
