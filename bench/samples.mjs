/** The data that every contender works on. */

/** One of 1,024 made beforehand, so that no row measures how they are made. */
const pooled = (make, pool = Array.from({ length: 1024 }, (_, n) => make(n))) => n => pool[n & 1023]

/** An event as nvent makes them, a good 300 bytes of JSON once it is stored. */
export const event = pooled(n => ({
  type: n % 10 === 9 ? 'step.failed' : 'step.completed',
  runId: `0f8fad5b-d9cb-469f-a165-${String(n % 1000).padStart(12, '0')}`,
  flowName: 'order',
  stepName: 'reserve',
  stepId: `0f8fad5b-d9cb-469f-a165-${String(n % 1000).padStart(12, '0')}__reserve__attempt-1`,
  attempt: 1,
  data: { result: { shelf: 'B4', reserved: [101, 102, 103], paid: true }, n },
}))

/** What the index holds of a run: one in ten is running. */
export const newMetadata = n => ({
  status: n % 10 === 3 ? 'running' : 'completed',
  flowName: `flow-${n % 7}`,
  startedAt: 1_700_000_000_000 + n,
  stepCount: 4,
  completedSteps: 4,
  emittedEvents: { 'order.valid': 1_700_000_000_100 + n, 'payment.charged': 1_700_000_000_200 + n },
  awaitingSteps: {},
})
export const metadata = pooled(newMetadata)

export const subjectOf = pooled(n => `nq:flow:0f8fad5b-d9cb-469f-a165-${String(n).padStart(12, '0')}`)
