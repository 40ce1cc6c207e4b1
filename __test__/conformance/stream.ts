import { afterEach, beforeEach, describe } from 'vitest'
import type { StreamAdapter } from 'nvent-native'
import { delivery } from './stream-delivery'
import { lifecycle } from './stream-lifecycle'
import { messages } from './stream-messages'
import { options } from './stream-options'
import { shared } from './stream-shared'

/** A broker of its own. */
export interface StreamPlace {
  /** A new adapter on the broker. With `retain`, every topic is retained, at most so many events. */
  open: (options?: { retain?: number }) => StreamAdapter
  /** Removes the broker; its adapters are shut down. */
  dispose: () => Promise<void>
}

/** What backends differ in. Each answer is tested, the noes too. */
export interface StreamCapabilities {
  backend: 'memory' | 'redis'
  /** Adapters on one place reach each other. */
  shared: boolean
  /** A group needs its topic to be retained. */
  groupNeedsRetain: boolean
}

export interface StreamContext {
  readonly stream: StreamAdapter
  /** A further adapter, shut down after the test. */
  readonly another: (options?: { retain?: number }) => StreamAdapter
  readonly capabilities: StreamCapabilities
}

/** The contract of a stream. Every backend's test calls it with a way to make brokers. */
export function streamConformance(name: string, factory: () => Promise<StreamPlace>, capabilities: StreamCapabilities): void {
  describe(`stream: ${name}`, () => {
    let place: StreamPlace
    let adapters: StreamAdapter[]
    const another = (options?: { retain?: number }): StreamAdapter => {
      const adapter = place.open(options)
      adapters.push(adapter)
      return adapter
    }
    const context: StreamContext = { get stream() { return adapters[0]! }, another, capabilities }

    beforeEach(async () => {
      place = await factory()
      adapters = []
      another()
    })
    afterEach(async () => {
      await Promise.all(adapters.map(adapter => adapter.shutdown()))
      await place.dispose()
    })

    describe('delivery', () => delivery(context))
    describe('messages', () => messages(context))
    describe('subscribe options', () => options(context))
    describe('shared', () => shared(context))
    describe('life cycle', () => lifecycle(context))
  })
}
