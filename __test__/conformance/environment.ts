import { afterEach, beforeEach } from 'vitest'

/** Where the adapters of a backend keep what they store, or through what they reach each other. Empty at first. */
export interface Environment<Adapter, Options> {
  /** Returns a new adapter on it. */
  open: (options?: Options) => Adapter
  /** Removes it; its adapters are closed. */
  dispose: () => Promise<void>
}

/** Gives each test of the block an environment with a first adapter, and closes every adapter after the test. */
export function freshEnvironments<Adapter, Options>(
  factory: () => Promise<Environment<Adapter, Options>>,
  close: (adapter: Adapter) => Promise<void>,
  defaults?: Options,
): { first: () => Adapter, another: (options?: Options) => Adapter } {
  let environment: Environment<Adapter, Options>
  let adapters: Adapter[]
  const another = (options: Options | undefined = defaults): Adapter => {
    const adapter = environment.open(options)
    adapters.push(adapter)
    return adapter
  }
  beforeEach(async () => {
    environment = await factory()
    adapters = []
    another()
  })
  afterEach(async () => {
    await Promise.all(adapters.map(close))
    await environment.dispose()
  })
  return { first: () => adapters[0]!, another }
}
