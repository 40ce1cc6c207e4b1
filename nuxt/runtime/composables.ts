/** Auto-imported on the server where nvent does not provide them. */
import {
  NventError, useQueueAdapter as queueAdapter, useStoreAdapter as storeAdapter, useStreamAdapter as streamAdapter,
} from 'nvent-native/native'
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'
import { messageOf, Startup } from './startup.js'

export { getEventBus } from 'nvent-native/native'

export const useStoreAdapter = (): StoreAdapter => orCause(storeAdapter)
export const useStreamAdapter = (): StreamAdapter => orCause(streamAdapter)
export const useQueueAdapter = (): QueueAdapter => orCause(queueAdapter)

/** Returns the current adapter. Throws why it is not open where the start of this server has not ended, or failed; the answer is 503. */
function orCause<T>(current: () => T): T {
  const { cause, isOpening } = Startup.current ?? {}
  if (cause === undefined) {
    try {
      return current()
    }
    catch (error) {
      if (!isOpening) throw error
      const why = new NventError('NVENT_UNAVAILABLE', 'the adapters are not open yet: opening them takes longer than requests wait', { retryable: true, cause: error })
      throw Object.assign(why, { statusCode: 503 })
    }
  }
  const { code, retryable } = cause instanceof NventError ? cause : { code: 'NVENT_CLOSED' as const, retryable: false }
  throw Object.assign(
    new NventError(code, `the adapters are not open${retryable ? ' yet' : ''}: ${messageOf(cause)}`, { retryable, cause }),
    { statusCode: 503 },
  )
}
