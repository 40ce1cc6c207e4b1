/**
 * What `code` of an error says. The message says what was wrong, where, and what to do.
 *
 * - `NVENT_INVALID`: an argument or option is not usable
 * - `NVENT_TYPE`: the stored value has another type
 * - `NVENT_NOT_FOUND`: the entry that the call needs is not there
 * - `NVENT_CONFLICT`: `expectedLastId` did not hold
 * - `NVENT_CLOSED`: used after close
 * - `NVENT_LOCKED`: another process holds the data directory; retryable
 * - `NVENT_CORRUPT`: the data directory, or a stored value, cannot be read
 * - `NVENT_UNAVAILABLE`: Redis cannot be reached; retryable
 * - `NVENT_IO`: the file system failed
 * - `NVENT_INTERNAL`: a defect of this package
 */
export type ErrorCode =
  | 'NVENT_INVALID'
  | 'NVENT_TYPE'
  | 'NVENT_NOT_FOUND'
  | 'NVENT_CONFLICT'
  | 'NVENT_CLOSED'
  | 'NVENT_LOCKED'
  | 'NVENT_CORRUPT'
  | 'NVENT_UNAVAILABLE'
  | 'NVENT_IO'
  | 'NVENT_INTERNAL'
