import { createHash } from 'node:crypto'

/** Names in the store, and ids that follow from a cause. */

/** Returns the subject of a trigger's history. */
export const historySubject = (trigger: string): string => `nq:trigger:${trigger}`
/** Where all histories are. */
export const HISTORY_PREFIX = 'nq:trigger:'

/** Returns the subject of a cause that is no event of the application: one cause each, so that a second one of its id is refused. */
export const causeSubject = (trigger: string, cause: string): string => `${causePrefix(trigger)}${hash([cause])}`
/** Returns what the subjects of a trigger's causes begin with. */
export const causePrefix = (trigger: string): string => `nq:trigger-cause:${trigger}:`
/** Index of these subjects, oldest first. */
export const CAUSE_INDEX = 'nq:trigger-causes'
/** Type of these causes. */
export const CAUSE_TYPE = 'trigger.requested'

/** Returns the key of a value of a trigger. */
export const valueKey = (what: 'state' | 'due' | 'windows', trigger: string): string => `nq:trigger-${what}:${trigger}`

function hash(parts: string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32)
}

/** Returns the id of the run that a cause starts. It follows from trigger, flow and cause, and begins with the trigger's name. */
export function runIdOf(trigger: string, flow: string, cause: string): string {
  const name = trigger.replace(/[^A-Za-z0-9.-]+/g, '-').slice(0, 40)
  return `${name}-${hash([trigger, flow, cause])}`
}

/** Returns the number of a position in the feed. Of this package's stores, whose positions end in a counter of the events. */
export const positionNumber = (position: string | null | undefined): number =>
  position ? Number(position.slice(position.lastIndexOf('-') + 1)) : 0

/** Compares two event ids of one subject. */
export function compareIds(a: string, b: string): number {
  const [aMs, aSeq] = a.split('-').map(Number) as [number, number]
  const [bMs, bSeq] = b.split('-').map(Number) as [number, number]
  return aMs - bMs || aSeq - bSeq
}
