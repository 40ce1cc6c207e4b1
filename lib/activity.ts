import { AsyncLocalStorage } from 'node:async_hooks'
import { setImmediate as nextTurn } from 'node:timers/promises'

/**
 * What a job's handler has caused and what has not been answered yet, so that a job is not committed as ended before its
 * writes. Two things count: the calls made by the handler and by whatever it started, found by their async context, and
 * the store calls of the environment that are under way when the handler settles.
 */

/** A call that is under way. */
export interface TrackedCall {
  /** Records that it is answered. */
  end(): void
}

/** Calls of one async context that have not been answered. */
class Activity implements TrackedCall {
  pending = 0
  /** Whether it has made a call: another one may follow in the same turn of the event loop. */
  hasCalled = false
  /** Handlers that run in it. */
  users = 0
  private readonly waiters = new Set<() => void>()

  begin(): void {
    this.hasCalled = true
    this.pending += 1
  }

  end(): void {
    this.pending -= 1
    if (this.pending === 0) this.wake()
  }

  private wake(): void {
    for (const resolve of this.waiters) resolve()
    this.waiters.clear()
  }

  /** Resolves when no call is pending, also not after a turn of the event loop: the answer to one call often causes another. */
  async quiescent(signal: AbortSignal): Promise<void> {
    // One listener, however many calls follow from one another.
    signal.addEventListener('abort', () => this.wake(), { once: true })
    while (!signal.aborted) {
      if (this.pending === 0) {
        await nextTurn()
        if (this.pending === 0) return
      }
      await new Promise<void>((resolve) => {
        this.waiters.add(resolve)
        if (this.pending === 0 || signal.aborted) resolve()
      })
    }
  }
}

/** Store calls that began between two snapshots. */
class Generation implements TrackedCall {
  pending = 0
  next: Generation | undefined
  readonly waiters: Array<() => void> = []

  end(): void {
    this.pending -= 1
    while (oldest.pending === 0 && oldest.next) {
      oldest.waiters.forEach(resolve => resolve())
      oldest = oldest.next
    }
  }
}

const context = new AsyncLocalStorage<Activity>()
/** The activities of runs that have a handler at work. */
const ofRuns = new Map<string, Activity>()
let oldest = new Generation()
let newest = oldest

/** Records a call that was answered at once. */
export function noteCall(): void {
  const activity = context.getStore()
  if (activity) activity.hasCalled = true
}

/** Records a call that is answered later, which its `end` then says. No closure for each: calls are many. */
export function beginCall(isStoreCall: boolean): TrackedCall | undefined {
  const activity = context.getStore()
  activity?.begin()
  if (!isStoreCall) return activity
  const generation = newest
  generation.pending += 1
  if (!activity) return generation
  return {
    end() {
      generation.end()
      activity.end()
    },
  }
}

/** Makes a call that no handler waits for: one that itself waits for the handlers, such as the end of their queue. */
export const untracked = <T>(work: () => T): T => context.exit(work)

/** Resolves when every store call made so far is answered; undefined where none is under way. */
function storeCallsSoFar(): Promise<void> | undefined {
  if (oldest === newest && newest.pending === 0) return undefined
  const last = newest
  newest = last.next = new Generation()
  return new Promise(resolve => last.waiters.push(resolve))
}

/** A handler that has settled, and the calls it waits for. */
export interface Settled<T> {
  outcome: PromiseSettledResult<T>
  /** Resolves with false where the calls were not answered in time. Undefined where there is nothing to wait for. */
  answered: ((timeout: number) => Promise<boolean>) | undefined
}

/**
 * Runs a handler in a context of its own, or in that of its run: nvent stores the events of a run one after the other, so that
 * what a handler has published waits for calls that other handlers of the run caused.
 */
export async function runTracked<T>(handler: () => T | PromiseLike<T>, run?: string): Promise<Settled<T>> {
  const activity = (run === undefined ? undefined : ofRuns.get(run)) ?? new Activity()
  if (run !== undefined) ofRuns.set(run, activity)
  activity.users += 1
  const leave = (): void => {
    activity.users -= 1
    if (run !== undefined && activity.users === 0) ofRuns.delete(run)
  }
  let outcome: PromiseSettledResult<T>
  try {
    outcome = { status: 'fulfilled', value: await context.run(activity, handler) }
  }
  catch (reason) {
    outcome = { status: 'rejected', reason }
  }
  const stored = storeCallsSoFar()
  if (!stored && !activity.hasCalled) {
    leave()
    return { outcome, answered: undefined }
  }
  return {
    outcome,
    answered: async (timeout) => {
      const deadline = new AbortController()
      const timer = setTimeout(() => deadline.abort(), timeout)
      const timedOut = new Promise<void>(resolve => deadline.signal.addEventListener('abort', () => resolve(), { once: true }))
      await Promise.race([Promise.all([stored, activity.quiescent(deadline.signal)]), timedOut])
      clearTimeout(timer)
      leave()
      return !deadline.signal.aborted
    },
  }
}
