import type { Adapters, EventRecord, StreamEvent, Wiring } from 'nvent-native/native'
import type { RunEvent, RunStatus, Sample, Stats } from '#shared/order'

type Listener = (message: { event: 'flow', data: RunEvent[] } | { event: 'stats', data: Stats } | { event: 'reload', data?: undefined }) => void

const HISTORY = 90
const STATUSES: RunStatus[] = ['running', 'completed', 'failed', 'canceled']
const listeners = new Set<Listener>()
const samples: Sample[] = []
const boot = crypto.randomUUID()
/** Counting reads every run: afterwards it rests for so many times what it took. */
const COUNT_REST = 20

let totals: Stats['totals'] = { running: 0, completed: 0, failed: 0, canceled: 0 }
let countAgainAt = 0

let latencies: number[] = []
let pending: RunEvent[] = []
let seconds = { events: 0, flows: 0 }

/** Collects what the page shows from the client channel; one subscription serves every open page. */
export async function startMonitor({ store, stream, queue, wiring }: Adapters & { wiring: Wiring & { stats(): any } }) {
  await stream.subscribe(`client:flow:*`, ({ type, data }: StreamEvent) => {
    // Events may have been missed: the pages load anew, from the store.
    if (type === 'stream.gap') send({ event: 'reload' })
    else observe(data.event)
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
    const [{ waiting, active }] = await Promise.all([queue.getJobCounts('orders'), countRuns(store)])
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

async function countRuns(store: Adapters['store']) {
  if (Date.now() < countAgainAt) return
  const begin = Date.now()
  const counts = await Promise.all(STATUSES.map(status => store.index.count(INDEX, { filter: { status } })))
  totals = Object.fromEntries(STATUSES.map((status, i) => [status, counts[i]])) as Stats['totals']
  countAgainAt = Date.now() + (Date.now() - begin) * COUNT_REST
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
  if (event.type === 'flow.completed') seconds.flows++
  if (event.type === 'emit') latencies.push(preciseNow() - event.data.payload.sentAt)
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
