/** Requests to the server, and the note that something was stored. */
import { onScopeDispose, readonly, ref, watch } from 'vue'

export type Status = 'running' | 'completed' | 'failed' | 'canceled'
export interface RunRow { id: string, flow: string, metadata: { status?: string, startedAt?: number, completedAt?: number, lastActivityAt?: number, stepCount?: number, completedSteps?: number, error?: string } }
export interface RunEvent { id: string, ts: number, type: string, stepName?: string, attempt?: number, data?: any, dataSize?: number, [field: string]: unknown }
export interface Step { name: string, queue: string, subscribes: string[], emits: string[] }
export interface Flow { id: string, steps: Step[] }
export interface Job { id: string, name: string, state: string, data: unknown, returnvalue?: unknown, failedReason?: string, timestamp?: number, processedOn?: number, finishedOn?: number, attemptsMade?: number, isLarge?: boolean }
export interface StepState { state: 'waiting' | 'enqueued' | 'active' | 'completed' | 'failed', unmet?: string[], error?: string | null }
export interface RunState { status: Status, steps: Record<string, StepState>, emits: Record<string, { ts: number, payload: unknown }>, retries: number, input?: unknown, error?: string }
export interface Health { ok: boolean, backend: string, detail?: string }
export interface Consumer { name: string, position: string | null, lag: number, parked: number }
export interface Parked { position: string, subject: string, event: RunEvent, attempts: number, reason: string, parkedAt: number }

export const base = document.querySelector<HTMLElement>('#app')!.dataset['path']!

const address = (name: string, query: Record<string, string | number | undefined>) => {
  const given = Object.entries(query).filter((entry): entry is [string, string | number] => entry[1] !== undefined && entry[1] !== '')
  return `${base}/api/${name}?${new URLSearchParams(given.map(([key, value]) => [key, String(value)]))}`
}

async function answer<T>(response: Response): Promise<T> {
  if (response.ok) return response.json() as Promise<T>
  const { message } = await response.json().catch(() => ({})) as { message?: string }
  throw new Error(message || `The server answered ${response.status}`)
}

export async function get<T>(name: string, query: Record<string, string | number | undefined> = {}, signal?: AbortSignal): Promise<T> {
  return answer<T>(await fetch(address(name, query), { signal }))
}

export async function post<T>(name: string, body: object): Promise<T> {
  return answer<T>(await fetch(`${base}/api/${name}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }))
}

/** Follows a run's log after an event. The browser itself reconnects where a connection breaks. */
export const follow = (query: Record<string, string | undefined>) => new EventSource(address('follow', query))

const connected = ref(false)
const head = ref(0)
/** ms between two notes to the page: what is stored in between is seen with the next. */
const NOTE_INTERVAL = 700
const RECONNECT_DELAY = 1_500

let noted = 0
let waiting: ReturnType<typeof setTimeout> | undefined

function note() {
  clearTimeout(waiting)
  const wait = Math.max(0, noted + NOTE_INTERVAL - Date.now())
  waiting = setTimeout(() => {
    noted = Date.now()
    head.value++
  }, wait)
}

export function connect() {
  const source = new EventSource(`${base}/api/live`)
  source.addEventListener('head', () => {
    connected.value = true
    note()
  })
  source.addEventListener('error', () => {
    connected.value = false
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_DELAY)
  })
}

/** Calls `load` now, whenever something was stored, and when the page is shown again. What it throws is in `error`. */
export function useLive(load: () => Promise<unknown>) {
  const error = ref<string>()
  let running: Promise<void> | undefined
  let again = false
  const refresh = (): Promise<void> => {
    if (running) {
      again = true
      return running
    }
    return running = (async () => {
      do {
        again = false
        try {
          await load()
          error.value = undefined
        }
        catch (failure) {
          if ((failure as Error).name !== 'AbortError') error.value = (failure as Error).message
        }
      } while (again)
      running = undefined
    })()
  }
  watch(head, () => document.hidden || void refresh())
  const onShow = () => document.hidden || void refresh()
  document.addEventListener('visibilitychange', onShow)
  onScopeDispose(() => document.removeEventListener('visibilitychange', onShow))
  void refresh()
  return { error: readonly(error), refresh }
}

export const live = readonly(connected)
