import { afterEach, beforeEach, describe } from 'vitest'
import type { StoreAdapter, StoreOptions } from 'nvent-native'
import { consumers } from './store-consumers'
import { documents } from './store-documents'
import { events } from './store-events'
import { indexes } from './store-index'
import { badInput } from './store-input'
import { iteration } from './store-iterate'
import { keys } from './store-kv'
import { lifecycle } from './store-lifecycle'
import { pages } from './store-pages'

/** A place for data, empty at first. */
export interface StorePlace {
  /** A new adapter on the place. */
  open: (options?: StoreOptions) => StoreAdapter
  /** Removes the place; its adapters are closed. */
  dispose: () => Promise<void>
}

/** What backends differ in. Each answer is tested, the noes too. */
export interface StoreCapabilities {
  backend: 'memory' | 'file' | 'redis'
  /** A later adapter on the same place finds what an earlier one wrote. */
  durable: boolean
}

export interface StoreContext {
  readonly place: StorePlace
  readonly store: StoreAdapter
  /** A further adapter, closed after the test. */
  readonly another: (options?: StoreOptions) => StoreAdapter
  readonly capabilities: StoreCapabilities
}

/** The contract of a store. Every backend's test calls it with a way to make places. */
export function storeConformance(name: string, factory: () => Promise<StorePlace>, capabilities: StoreCapabilities): void {
  describe(`store: ${name}`, () => {
    let place: StorePlace
    let adapters: StoreAdapter[]
    const another = (options: StoreOptions = { bus: null }): StoreAdapter => {
      const adapter = place.open(options)
      adapters.push(adapter)
      return adapter
    }
    const context: StoreContext = {
      get place() { return place },
      get store() { return adapters[0]! },
      another,
      capabilities,
    }

    beforeEach(async () => {
      place = await factory()
      adapters = []
      another()
    })
    afterEach(async () => {
      await Promise.all(adapters.map(adapter => adapter.close()))
      await place.dispose()
    })

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
