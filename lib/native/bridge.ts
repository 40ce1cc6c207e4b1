import { addon } from './addon'

type Kind = 'calls' | 'completed' | 'deliveries' | 'warnings'

const takers = new Map<Kind, () => void>()

/** The bridge of this environment. Wakes JavaScript when native threads have something for it. */
export const bridge = new addon.Bridge(() => {
  bridge.clearNotified()
  takers.get('calls')?.()
  // Before deliveries: whoever awaits a subscription registers its handler first.
  takers.get('completed')?.()
  takers.get('deliveries')?.()
  takers.get('warnings')?.()
})

/** Registers what takes one kind of thing from the bridge. */
export function onWake(kind: Kind, take: () => void): void {
  takers.set(kind, take)
}
