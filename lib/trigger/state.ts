import type { StoreAdapter } from '../types'
import { positionNumber, valueKey } from './names'

/** What `enable` and `disable` have stored. */
interface Stored {
  enabled: boolean
  /** The newest position of the feed when it was enabled: what is there was not for it. */
  since?: string | null
  /** When it was: Unix time in ms. */
  at: number
}

/** Whether a trigger fires, as the store has it. */
export class Switch {
  constructor(private readonly store: StoreAdapter, private readonly trigger: string, private readonly initially: boolean) {}

  async isOn(): Promise<boolean> {
    return (await this.read())?.enabled ?? this.initially
  }

  /** Returns whether what is stored at a position fires now. */
  async isOnFor(position: string): Promise<boolean> {
    const stored = await this.read()
    if (!stored) return this.initially
    return stored.enabled && positionNumber(position) > positionNumber(stored.since)
  }

  /** Returns whether a time fires now. */
  async isOnAt(time: number): Promise<boolean> {
    const stored = await this.read()
    if (!stored) return this.initially
    return stored.enabled && time > stored.at
  }

  /** Resolves with whether that is a change. */
  async set(enabled: boolean): Promise<boolean> {
    if (await this.isOn() === enabled) return false
    const stored: Stored = { enabled, at: Date.now(), ...enabled ? { since: await this.store.feed.head() } : {} }
    await this.store.kv.set(valueKey('state', this.trigger), stored)
    return true
  }

  private read(): Promise<Stored | null> {
    return this.store.kv.get<Stored>(valueKey('state', this.trigger))
  }
}
