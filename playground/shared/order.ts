/** The flow that the page shows: what the server runs and the page draws. */
import type { FlowDefinition } from 'nvent-native/native'

export const FLOW = 'order'
export const STEPS = ['validate', 'charge', 'reserve', 'ship', 'notify'] as const
export type Step = typeof STEPS[number]

/** Charging and reserving run side by side; shipping waits for both. */
export const orderFlow: FlowDefinition = {
  id: FLOW,
  entry: { step: 'validate', queue: 'orders', emits: ['order.valid'] },
  steps: {
    charge: { queue: 'orders', subscribes: ['order.valid'], emits: ['order.paid'] },
    reserve: { queue: 'orders', subscribes: ['order.valid'], emits: ['stock.reserved'] },
    ship: { queue: 'orders', subscribes: ['order.paid', 'stock.reserved'], emits: ['order.shipped'] },
    notify: { queue: 'orders', subscribes: ['order.shipped'] },
  },
}

export type RunStatus = 'running' | 'completed' | 'failed' | 'canceled'
export type StepState = 'waiting' | 'active' | 'retrying' | 'done' | 'failed'

/** A run in the index; one that is under way with its events so far. */
export interface RunSummary {
  id: string
  status: RunStatus
  startedAt: number
  completedAt?: number
  events?: RunEvent[]
}

/** An event of a run as the page needs it: all of a step's life is in its type. */
export interface RunEvent {
  id: string
  runId: string
  type: string
  ts: number
  step?: string
  attempt?: number
}

/** What the server measured in one second. */
export interface Sample {
  at: number
  /** Events per second that came over the client channel. */
  events: number
  /** Flows completed in that second. */
  flows: number
}

export interface Stats {
  /** Changes with each start of the server. */
  boot: string
  channels: Record<string, number>
  /** From append to subscriber, in milliseconds. */
  latency: { p50: number, p99: number } | null
  totals: Record<RunStatus, number>
  jobs: { waiting: number, active: number }
  stored: number
  sample: Sample
}
