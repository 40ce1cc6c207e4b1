import type { ErrorCode } from './types'

/** Every rejection of this package. */
export class NventError extends Error {
  override name = 'NventError'
  /** Stable; never changes its meaning. */
  readonly code: ErrorCode
  /** Whether the same call may succeed later without a change to it. */
  readonly retryable: boolean
  /** Whether the write may have been applied although it failed (sent to Redis, and not answered). */
  readonly maybeApplied: boolean

  constructor(code: ErrorCode, message: string, details: { retryable?: boolean, maybeApplied?: boolean, cause?: unknown } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retryable = details.retryable ?? false
    this.maybeApplied = details.maybeApplied ?? false
  }
}

export const invalid = (message: string, cause?: unknown): NventError => new NventError('NVENT_INVALID', message, { cause })

/** The error that the core describes, as it came over the boundary. */
export function fromNative(error: { code: ErrorCode, message: string, retryable: boolean, maybeApplied: boolean }): NventError {
  return new NventError(error.code, error.message, error)
}

/** What a native method threw. */
export function rethrown(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || !thrown.message.startsWith('{"code":"NVENT_')) return thrown
  return fromNative(JSON.parse(thrown.message))
}
