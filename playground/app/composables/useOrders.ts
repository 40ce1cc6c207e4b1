/** The page's view of the orders: loaded from the index, updated by server-sent events. */
import { STEPS, type Order, type RunEvent, type RunStatus, type RunSummary, type Sample, type Stats, type Step, type StepState } from '#shared/order'

export interface Run {
  id: string
  status: RunStatus
  startedAt: number
  completedAt?: number
  steps: Record<Step, StepState>
}

/** Runs that the page holds; the list shows fewer. */
const MAX_RUNS = 1000
const HISTORY = 90
/** The server sends a message every second; without one for this long, in ms, it counts as away. */
const SERVER_TIMEOUT = 4000

export function useOrders() {
  const runs = shallowRef(new Map<string, Run>())
  const stats = shallowRef<Stats>()
  const samples = shallowRef<Sample[]>([])
  const connection = ref<'connecting' | 'live' | 'away'>('connecting')
  const busy = ref(false)
  const listeners = new Set<(events: RunEvent[]) => void>()

  /** Newest first. */
  const newest = computed(() => [...runs.value.values()].sort((a, b) => b.startedAt - a.startedAt || (a.id < b.id ? -1 : 1)))

  async function load() {
    const [summaries, history] = await Promise.all([
      $fetch<RunSummary[]>('/api/runs', { query: { limit: 200 } }),
      $fetch<Sample[]>('/api/history'),
    ])
    const loaded = new Map<string, Run>()
    for (const { events, ...summary } of summaries.reverse()) {
      loaded.set(summary.id, { ...summary, steps: allSteps(summary.status === 'completed' ? 'done' : 'waiting') })
      for (const event of events ?? []) apply(loaded, event)
    }
    runs.value = loaded
    samples.value = history
  }

  let source: EventSource | undefined
  let watchdog: ReturnType<typeof setTimeout>
  let retry: ReturnType<typeof setTimeout>
  let delay = 500

  function connect() {
    source?.close()
    source = new EventSource('/api/events')
    resetWatchdog()
    source.addEventListener('hello', async () => {
      try {
        await load()
        delay = 500
        connection.value = 'live'
      }
      catch {
        onDisconnect()
      }
    })
    source.addEventListener('flow', ({ data }) => {
      resetWatchdog()
      const events: RunEvent[] = JSON.parse(data)
      for (const event of events) apply(runs.value, event)
      for (const id of runs.value.keys()) {
        if (runs.value.size <= MAX_RUNS) break
        runs.value.delete(id)
      }
      triggerRef(runs)
      for (const listener of listeners) listener(events)
    })
    source.addEventListener('stats', ({ data }) => {
      resetWatchdog()
      stats.value = JSON.parse(data)
      samples.value = [...samples.value, stats.value!.sample].slice(-HISTORY)
    })
    // The server may have missed events: the store has them all.
    source.addEventListener('reload', () => void load().catch(onDisconnect))
    source.addEventListener('error', onDisconnect)
  }

  function resetWatchdog() {
    clearTimeout(watchdog)
    watchdog = setTimeout(onDisconnect, SERVER_TIMEOUT)
  }

  function onDisconnect() {
    source?.close()
    clearTimeout(watchdog)
    clearTimeout(retry)
    connection.value = 'away'
    retry = setTimeout(connect, delay)
    delay = Math.min(delay * 1.5, 3000)
  }

  async function start(count: number, card?: Order['card']) {
    busy.value = true
    try {
      await $fetch('/api/orders', { method: 'POST', body: { count, card } })
    }
    catch {
      onDisconnect()
    }
    finally {
      busy.value = false
    }
  }

  /** Calls `listener` with each batch of events. */
  function onEvents(listener: (events: RunEvent[]) => void) {
    listeners.add(listener)
    onScopeDispose(() => listeners.delete(listener))
  }

  onMounted(connect)
  onBeforeUnmount(() => {
    source?.close()
    clearTimeout(watchdog)
    clearTimeout(retry)
  })

  return { newest, stats, samples, connection, busy, start, onEvents }
}

function apply(runs: Map<string, Run>, { runId, type, ts, step }: RunEvent) {
  let run = runs.get(runId)
  if (!run) runs.set(runId, run = { id: runId, status: 'running', startedAt: ts, steps: allSteps('waiting') })
  const set = (state: StepState) => {
    if (isStep(step) && run.steps[step] !== 'done') run.steps[step] = state
  }
  switch (type) {
    case 'step.started': return set('active')
    case 'step.failed': return set('failed')
    case 'step.retry': return set('retrying')
    case 'step.completed': return set('done')
    case 'flow.retry':
      for (const step of STEPS) if (run.steps[step] === 'failed') run.steps[step] = 'waiting'
      run.status = 'running'
      run.completedAt = undefined
      return
    case 'flow.completed':
    case 'flow.failed':
    case 'flow.cancel':
      run.status = type === 'flow.completed' ? 'completed' : type === 'flow.failed' ? 'failed' : 'canceled'
      run.completedAt = ts
  }
}

export const isStep = (step: unknown): step is Step => STEPS.includes(step as Step)

const allSteps = (state: StepState) => Object.fromEntries(STEPS.map(step => [step, state])) as Record<Step, StepState>
