/** Counts the calls made on some adapters, so that they can be closed when nothing uses them any more. */
export class Activity {
  private inFlight = 0
  private lastUse = performance.now()

  /** Counts the calls of every method of `target`, by replacing each with one that calls it. */
  watch(target: object, methods = methodsOf(target)): void {
    for (const name of methods) {
      const method: unknown = Reflect.get(target, name)
      if (typeof method !== 'function') continue
      const counted = (...args: unknown[]): unknown => this.count(() => method.apply(target, args))
      Object.defineProperty(target, name, { value: counted, configurable: true, writable: true })
    }
  }

  /** Resolves once no call was made or in flight for `delay` ms, at the latest after `timeout` ms. Returns whether it was quiet. */
  async quiet(delay: number, timeout: number): Promise<boolean> {
    const deadline = performance.now() + timeout
    for (;;) {
      const now = performance.now()
      const rest = this.inFlight > 0 ? delay : this.lastUse + delay - now
      if (rest <= 0) return true
      if (now >= deadline) return false
      await new Promise(resolve => setTimeout(resolve, Math.min(rest, deadline - now)))
    }
  }

  private count(call: () => unknown): unknown {
    this.lastUse = performance.now()
    const result = call()
    if (result instanceof Promise) {
      this.inFlight++
      const end = () => {
        this.inFlight--
        this.lastUse = performance.now()
      }
      result.then(end, end)
    }
    return result
  }
}

/** Methods that say nothing about use. */
const UNCOUNTED = new Set(['constructor', 'init', 'close', 'shutdown', 'health', 'stats'])

/** Returns the names of the methods of an object that use it. */
function methodsOf(target: object): string[] {
  const names = new Set<string>()
  for (let at = target; at !== Object.prototype && at !== null; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) if (!UNCOUNTED.has(name)) names.add(name)
  }
  return [...names]
}
