import { describe } from 'vitest'
import type { StreamAdapter } from 'nvent-native'
import { freshEnvironments } from './environment'
import type { Environment } from './environment'
import { delivery } from './stream-delivery'
import { lifecycle } from './stream-lifecycle'
import { messages } from './stream-messages'
import { options } from './stream-options'
import { shared } from './stream-shared'

/** A broker. With `retain`, an adapter retains every topic, at most so many events. */
type StreamEnvironment = Environment<StreamAdapter, { retain?: number }>

/** What backends differ in. Each answer is tested, the noes too. */
export interface StreamCapabilities {
  backend: 'memory' | 'redis'
  /** Adapters in one environment reach each other. */
  shared: boolean
  /** At most as many events are retained as the options say; otherwise somewhat more may be. */
  retainsExactly: boolean
  /** A group acknowledges its messages, so that what fails is delivered again; for that its topic has to be retained. */
  groupAcknowledges: boolean
}

export interface StreamContext {
  readonly stream: StreamAdapter
  /** A further adapter, shut down after the test. */
  readonly another: (options?: { retain?: number }) => StreamAdapter
  readonly capabilities: StreamCapabilities
}

/** The contract of a stream. Every backend's test calls it with a way to make environments. */
export function streamConformance(name: string, factory: () => Promise<StreamEnvironment>, capabilities: StreamCapabilities): void {
  describe(`stream: ${name}`, () => {
    const { first, another } = freshEnvironments(factory, adapter => adapter.shutdown())
    const context: StreamContext = { get stream() { return first() }, another, capabilities }

    describe('delivery', () => delivery(context))
    describe('messages', () => messages(context))
    describe('subscribe options', () => options(context))
    describe('shared', () => shared(context))
    describe('life cycle', () => lifecycle(context))
  })
}
