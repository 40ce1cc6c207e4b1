import { useRuntimeConfig } from '#imports'
import { computed, onScopeDispose, readonly, ref, shallowRef, toValue, watch, type MaybeRefOrGetter } from 'vue'
import type { EventRecord } from 'nvent-native/native'

/** A step of a run, as its events say. */
export interface FlowRunStep {
  name: string
  status: 'running' | 'completed' | 'failed'
  attempt: number
  /** Unix time in ms. */
  startedAt: number
  /** Unix time in ms; absent while it runs. */
  endedAt?: number
  error?: string
}
export type FlowRunStatus = 'pending' | 'running' | 'completed' | 'failed' | 'canceled'

/** Pauses before another connection, in ms; the last one repeats. The browser itself reconnects where a connection breaks. */
const RECONNECT_DELAYS = [250, 500, 1_000, 2_000, 5_000]

const STATUS: Record<string, FlowRunStatus> = {
  'flow.start': 'running', 'flow.retry': 'running', 'flow.completed': 'completed', 'flow.failed': 'failed', 'flow.cancel': 'canceled',
}
const isOver = (status: FlowRunStatus) => status === 'completed' || status === 'failed' || status === 'canceled'

/**
 * Follows a run in the browser: what its log has, then live, without a hole across reconnects and restarts of the server.
 * Ends with the scope that it is used in.
 */
export function useFlowRun(runId: MaybeRefOrGetter<string | null | undefined>) {
  const { app, public: config } = useRuntimeConfig() as unknown as { app: { baseURL: string }, public: { nventNative: { realtime: string } } }
  const events = shallowRef<EventRecord[]>([])
  const connected = ref(false)
  const status = computed(() => events.value.reduce<FlowRunStatus>((status, { type }) => STATUS[type] ?? (status === 'pending' ? 'running' : status), 'pending'))
  const steps = computed(() => stepsOf(events.value))
  const error = computed(() => {
    const last = events.value.filter(({ type }) => type in STATUS).at(-1)
    return last?.type === 'flow.failed' || last?.type === 'flow.cancel' ? String(last.data?.error ?? last.data?.reason ?? last.type) : null
  })

  let source: EventSource | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let failures = 0
  let seen = new Set<string>()

  const close = () => {
    clearTimeout(timer)
    source?.close()
    source = undefined
    connected.value = false
  }
  const open = (id: string) => {
    const last = events.value.at(-1)?.id
    const url = `${app.baseURL.replace(/\/$/, '')}${config.nventNative.realtime}/runs/${encodeURIComponent(id)}/events`
    const current = source = new EventSource(last === undefined ? url : `${url}?lastEventId=${last}`)
    current.onopen = () => {
      connected.value = true
      failures = 0
    }
    current.onmessage = ({ data }: MessageEvent<string>) => {
      const event: EventRecord = JSON.parse(data)
      if (seen.has(event.id)) return
      seen.add(event.id)
      events.value = [...events.value, event]
    }
    current.onerror = () => {
      connected.value = false
      if (isOver(status.value)) return close()
      if (current.readyState !== EventSource.CLOSED) return
      // The server answered with an error, which a browser takes for final: it may only be starting.
      timer = setTimeout(() => open(id), RECONNECT_DELAYS[Math.min(failures++, RECONNECT_DELAYS.length - 1)])
    }
  }

  if (import.meta.client) {
    watch(() => toValue(runId), (id) => {
      close()
      events.value = []
      seen = new Set()
      failures = 0
      if (id) open(id)
    }, { immediate: true })
    onScopeDispose(close)
  }
  return { status, events, steps, error, connected: readonly(connected) }
}

function stepsOf(events: EventRecord[]): FlowRunStep[] {
  const steps = new Map<string, FlowRunStep>()
  for (const { type, stepName, attempt = 1, ts, data } of events) {
    if (stepName === undefined || !type.startsWith('step.')) continue
    const step: FlowRunStep = type === 'step.started' || !steps.has(stepName)
      ? { name: stepName, status: 'running', attempt, startedAt: steps.get(stepName)?.startedAt ?? ts }
      : { ...steps.get(stepName)!, attempt }
    if (type === 'step.completed' || type === 'step.failed') {
      step.status = type === 'step.completed' ? 'completed' : 'failed'
      step.endedAt = ts
      if (type === 'step.failed') step.error = String(data?.error ?? '')
    }
    else if (type === 'step.retry') {
      step.status = 'running'
      delete step.endedAt
    }
    steps.set(stepName, step)
  }
  return [...steps.values()]
}
