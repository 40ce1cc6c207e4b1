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
  /** The operation that failed, such as `append`, where it is known. */
  readonly operation: string | undefined

  constructor(code: ErrorCode, message: string, details: { retryable?: boolean, maybeApplied?: boolean, operation?: string, cause?: unknown } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retryable = details.retryable ?? false
    this.maybeApplied = details.maybeApplied ?? false
    this.operation = details.operation
  }
}

export const invalid = (message: string, cause?: unknown): NventError => new NventError('NVENT_INVALID', message, { cause })

interface NativeError { code: ErrorCode, message: string, retryable: boolean, maybeApplied: boolean, operation?: string, cause?: string }

/** Creates the error that the core describes. */
export function fromNative({ cause, ...error }: NativeError): NventError {
  return new NventError(error.code, error.message, { ...error, cause: cause === undefined ? undefined : new Error(cause) })
}

/** Returns what a native method threw: an error of the core as {@link NventError}. */
export function rethrown(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || !thrown.message.startsWith('{"code":"NVENT_')) return thrown
  return fromNative(JSON.parse(thrown.message))
}

/** Returns what `read` returns, or undefined where it throws. Applications may throw any value, also one that cannot be looked at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read()
  }
  catch {
    return undefined
  }
}

/** Returns a thrown value as text, which has a form in UTF-8. Never throws. */
export function messageOf(error: unknown): string {
  return attempt(() => String(error instanceof Error ? error.message : error).toWellFormed()) ?? 'a value without a message was thrown'
}

/** Returns a thrown value as text, with its stack where it has one. Never throws. */
export function stackOf(error: unknown): string {
  return attempt(() => error instanceof Error && typeof error.stack === 'string' ? error.stack : undefined) ?? messageOf(error)
}

/** Errors of the program rather than of a connection: to try again does not help. */
const DEFECTS = [TypeError, RangeError, ReferenceError, SyntaxError]

/** Whether an error of each code is retryable where it does not say so. */
const CODES: Record<ErrorCode, boolean> = {
  NVENT_INVALID: false, NVENT_TYPE: false, NVENT_NOT_FOUND: false, NVENT_CONFLICT: false, NVENT_CLOSED: false, NVENT_LOCKED: true,
  NVENT_CORRUPT: false, NVENT_UNAVAILABLE: true, NVENT_IO: false, NVENT_INTERNAL: false,
}

/**
 * Returns a thrown value as JSON for native code. An error with a code of this package keeps it, a defect of the program is
 * NVENT_INVALID, and everything else counts as an outage, which is tried again. Never throws.
 */
export function describeError(error: unknown): string {
  const given = attempt(() => (error as { code?: unknown }).code)
  const own = typeof given === 'string' && Object.hasOwn(CODES, given) ? given as ErrorCode : undefined
  const isDefect = attempt(() => DEFECTS.some(kind => error instanceof kind)) ?? false
  const code = own ?? (isDefect ? 'NVENT_INVALID' : 'NVENT_UNAVAILABLE')
  const flag = (name: 'retryable' | 'maybeApplied'): unknown => own && attempt(() => (error as NventError)[name])
  const retryable = flag('retryable')
  return JSON.stringify({
    code,
    message: messageOf(error),
    retryable: typeof retryable === 'boolean' ? retryable : CODES[code],
    maybeApplied: flag('maybeApplied') === true,
  })
}

/**
 * Returns a promise where a handler returned a promise or another thenable, whose `then` is read once. Throws what reading it
 * throws.
 */
export function toPromise(value: unknown): Promise<unknown> | undefined {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function')) return undefined
  const then = (value as PromiseLike<unknown>).then as unknown
  if (typeof then !== 'function') return undefined
  return new Promise((resolve, reject) => {
    // In a turn of its own, as `await` does.
    queueMicrotask(() => {
      try {
        then.call(value, resolve, reject)
      }
      catch (error) {
        reject(error)
      }
    })
  })
}
