import { setTimeout as delay } from 'node:timers/promises'
import type { EventRecord, NewEvent, StoreAdapter } from '../types'

/** ms */
const FIRST_DELAY_MS = 50
const MAX_DELAY_MS = 5_000

const isRetryable = (error: unknown): boolean => (error as { retryable?: unknown } | undefined)?.retryable === true

/** Repeats a call while its error is retryable, with growing pauses, until the signal is aborted. */
export async function whileRetryable<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let pause = FIRST_DELAY_MS; ; pause = Math.min(pause * 2, MAX_DELAY_MS)) {
    try {
      return await work()
    }
    catch (error) {
      if (!isRetryable(error)) throw error
      await delay(pause, undefined, { signal }).catch(() => {
        throw error
      })
    }
  }
}

/**
 * Appends an event of a step, also through an outage of the store. An append that may have been applied is looked up in
 * what the log got since `after` before it is repeated.
 */
export async function appendOnce(store: StoreAdapter, subject: string, event: NewEvent, after: string | undefined, signal?: AbortSignal): Promise<EventRecord> {
  let unsure = false
  const isSame = (stored: EventRecord): boolean =>
    stored.stepId === event['stepId'] && JSON.stringify(stored.data) === JSON.stringify(event['data'])
  return whileRetryable(async () => {
    try {
      if (unsure) {
        const stored = await store.stream.read(subject, { types: [event.type], ...after === undefined ? {} : { after } })
        const found = stored.find(isSame)
        if (found) return found
      }
      return await store.stream.append(subject, event)
    }
    catch (error) {
      unsure ||= (error as { maybeApplied?: unknown } | undefined)?.maybeApplied === true
      throw error
    }
  }, signal)
}
