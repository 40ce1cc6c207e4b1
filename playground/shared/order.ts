/** What the server and the page agree on. */
export const FLOW = 'order'
export const STEPS = ['validate', 'charge', 'reserve', 'ship', 'notify'] as const
export type Step = typeof STEPS[number]

/** An order, as it comes in. The bank declines the first three attempts on a card that is `declined`, and takes a minute for one that is `slow`. */
export interface Order { card?: 'declined' | 'slow' }

export type RunStatus = 'running' | 'completed' | 'failed' | 'canceled'
export type StepState = 'waiting' | 'active' | 'retrying' | 'done' | 'failed'

/** A run in the index; one that has not completed with its events. */
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
