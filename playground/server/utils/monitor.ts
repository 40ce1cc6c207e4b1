import type { Adapters, EventRecord, StreamEvent, Wiring } from 'nvent-native/native'
import { FLOW, type RunEvent, type RunStatus, type Sample, type Stats } from '#shared/order'

type Listener = (message: { event: 'flow', data: RunEvent[] } | { event: 'stats', data: Stats } | { event: 'reload', data?: undefined }) => void

const HISTORY = 90
const listeners = new Set<Listener>()
const samples: Sample[] = []
const totals: Record<RunStatus, number> = { running: 0, completed: 0, failed: 0, canceled: 0 }
const boot = crypto.randomUUID()

let latencies: number[] = []
let pending: RunEvent[] = []
let seconds = { events: 0, flows: 0 }

/** Collects what the page shows from the client channel; one subscription serves every open page. */
export async function startMonitor({ store, stream, queue, wiring }: Adapters & { wiring: Wiring & { stats(): any } }) {
  await countRuns(store)
  await stream.subscribe(`client:flow:*`, ({ type, data }: StreamEvent) => {
    // Events may have been missed: the pages load anew, from the store.
    if (type === 'stream.gap') send({ event: 'reload' })
    else observe(data.event)
  })
  await stream.subscribe(`client:ui:flow:${FLOW}`, async ({ type, data }: StreamEvent) => {
    if (type === 'stream.gap') return countRuns(store)
    totals[data.status as RunStatus]++
    if (data.status !== 'running') totals.running--
    if (data.status === 'completed') seconds.flows++
  })

  const flush = setInterval(() => {
    if (pending.length) send({ event: 'flow', data: pending })
    pending = []
  }, 40)
  const tick = setInterval(async () => {
    const sample = { at: Date.now(), ...seconds }
    seconds = { events: 0, flows: 0 }
    samples.push(sample)
    samples.splice(0, samples.length - HISTORY)
    const { waiting, active } = await queue.getJobCounts('orders')
    send({ event: 'stats', data: {
      boot,
      channels: wiring.stats().streamCoordinator.routed,
      latency: percentiles(),
      totals,
      jobs: { waiting, active },
      stored: store.stats().appends,
      sample,
    } })
  }, 1000)
  flush.unref()
  tick.unref()
  return () => {
    clearInterval(flush)
    clearInterval(tick)
  }
}

/** Counts the runs of each status in the index. */
async function countRuns(store: Adapters['store']) {
  const runs = await store.index.read(INDEX, { limit: 1_000_000 })
  for (const status in totals) totals[status as RunStatus] = 0
  for (const run of runs) totals[run.metadata.status as RunStatus]++
}

export const recentSamples = (): Sample[] => samples

export function listen(listener: Listener): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function send(message: Parameters<Listener>[0]) {
  for (const listener of listeners) listener(message)
}

function observe(event: EventRecord) {
  seconds.events++
  if (event.sentAt) latencies.push(preciseNow() - event.sentAt)
  pending.push(toRunEvent(event))
}

export function toRunEvent({ id, runId, type, ts, stepName, attempt }: EventRecord): RunEvent {
  return { id, runId: runId!, type, ts, step: stepName, attempt }
}

/** Returns the percentiles of the last thousand events. */
function percentiles(): Stats['latency'] {
  latencies = latencies.slice(-1000)
  const sorted = [...latencies].sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)]!
  return sorted.length ? { p50: at(0.5), p99: at(0.99) } : null
}
