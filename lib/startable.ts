import { isArray } from './check'
import { invalid } from './errors'
import { currentAdapter } from './factory'
import { describe } from './options/check.js'
import { Turns } from './turns'
import type { FlowDefinition, StoreAdapter } from './types'

/** What starts and stops: one after the other, however it is called. */
export abstract class Startable {
  private readonly turns = new Turns()

  start(): Promise<void> {
    return this.turns.take(() => this.begin())
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  stop(): Promise<void> {
    return this.turns.take(() => this.end())
  }

  protected abstract begin(): Promise<void>
  protected abstract end(): Promise<void>
}

/** Returns the store given, or the current one, where it has a feed to consume. */
export function consumableStore(given: StoreAdapter | undefined, what: string): StoreAdapter {
  const store = given ?? currentAdapter('store')
  if (typeof store.consume !== 'function') throw invalid(`store: ${what} need a store of this package, which has a feed`)
  return store
}

/** Returns what was given, or what the function given returns. */
export const resolved = <T>(given: T | (() => T)): T => typeof given === 'function' ? (given as () => T)() : given

/** Returns the flows that were given, or that the function given returns. */
export function resolvedFlows(given: FlowDefinition[] | (() => FlowDefinition[]) | undefined): FlowDefinition[] {
  const flows = resolved(given) ?? []
  if (!isArray(flows)) throw invalid(`flows: expected an array of flows, got ${describe(flows)}`)
  return flows
}

/** Stops all of them, then rejects with the first failure. */
export async function stopAll(parts: Iterable<{ stop: () => Promise<void> }>): Promise<void> {
  const stopped = await Promise.allSettled(Array.from(parts, one => one.stop()))
  for (const result of stopped) {
    if (result.status === 'rejected') throw result.reason
  }
}
