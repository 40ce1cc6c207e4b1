/** The attempts of a run's steps on a line of time, from its events. */
import type { RunEvent, Step } from './api'

export interface Bar {
  kind: 'waiting' | 'running' | 'completed' | 'failed'
  from: number
  to: number
  /** The event that it begins with. */
  event: string
  title: string
}
export interface Track { step: string, bars: Bar[], attempts: number, worked: number, waited: number }

const TERMINAL = ['flow.completed', 'flow.failed', 'flow.cancel']

/** Returns the run's end, by its log: null while it is under way. */
export function endOf(events: readonly RunEvent[]): RunEvent | null {
  const last = events.findLast(({ type }) => TERMINAL.includes(type) || type === 'flow.retry')
  return last === undefined || last.type === 'flow.retry' ? null : last
}

/** Returns a track for each step, in the order in which they began; those that have not begun follow. `until`: the time that is drawn last. */
export function tracksOf(events: readonly RunEvent[], steps: readonly Step[], until: number): Track[] {
  const tracks = new Map<string, Track>()
  const trackOf = (step: string): Track => {
    const track = tracks.get(step) ?? { step, bars: [], attempts: 0, worked: 0, waited: 0 }
    tracks.set(step, track)
    return track
  }
  const open = new Map<string, Bar>()
  /** Since when a step waits for its next attempt. */
  const due = new Map<string, { ts: number, event: string }>()
  const happened = new Map<string, RunEvent>()

  const enqueue = (step: string, { ts, id }: RunEvent) => due.has(step) || open.has(step) || due.set(step, { ts, event: id })
  const happen = (name: string, event: RunEvent) => {
    if (happened.has(name)) return
    happened.set(name, event)
    for (const { name: step, subscribes } of steps) {
      if (subscribes.includes(name) && subscribes.every(other => happened.has(other)) && !tracks.has(step)) enqueue(step, event)
    }
  }
  const end = (step: string, kind: Bar['kind'], ts: number, title?: string) => {
    const bar = open.get(step)
    if (!bar) return
    open.delete(step)
    bar.kind = kind
    bar.to = ts
    if (title) bar.title = title
    trackOf(step).worked += bar.to - bar.from
  }
  const endWait = (step: string, ts: number) => {
    const since = due.get(step)
    due.delete(step)
    if (since === undefined || ts <= since.ts) return
    const track = trackOf(step)
    track.waited += ts - since.ts
    track.bars.push({ kind: 'waiting', from: since.ts, to: ts, event: since.event, title: 'waiting' })
  }

  for (const event of events) {
    const { type, stepName: step, ts, id, data } = event
    if (type === 'flow.start') {
      const entry = steps.find(({ subscribes }) => subscribes.length === 0)
      if (entry) enqueue(entry.name, event)
    }
    else if (type === 'flow.retry') {
      for (const [name, track] of tracks) if (track.bars.at(-1)?.kind === 'failed') enqueue(name, event)
    }
    else if (type === 'emit' && typeof data?.name === 'string') happen(data.name, event)
    else if (TERMINAL.includes(type)) {
      for (const name of [...open.keys()]) end(name, type === 'flow.cancel' ? 'failed' : 'completed', ts)
      for (const name of [...due.keys()]) endWait(name, ts)
    }
    else if (step !== undefined) {
      const track = trackOf(step)
      if (type === 'step.started') {
        // An attempt that was cut short by a crash has no end in the log.
        end(step, 'failed', ts, 'cut short')
        endWait(step, ts)
        track.attempts++
        const bar: Bar = { kind: 'running', from: ts, to: until, event: id, title: `attempt ${track.attempts}` }
        open.set(step, bar)
        track.bars.push(bar)
      }
      else if (type === 'step.completed') {
        end(step, 'completed', ts)
        happen(`step:${step}`, event)
      }
      else if (type === 'step.failed') {
        end(step, 'failed', ts, typeof data?.error === 'string' ? data.error : undefined)
        if (data?.willRetry === true) enqueue(step, event)
      }
      else if (type === 'step.retry') {
        end(step, 'failed', ts, typeof data?.error === 'string' ? data.error : undefined)
        enqueue(step, event)
      }
    }
  }
  for (const name of [...due.keys()]) endWait(name, until)
  for (const [name, bar] of open) trackOf(name).worked += bar.to - bar.from
  for (const { name } of steps) trackOf(name)
  return [...tracks.values()]
}

/** Returns round times for the axis, in ms from the begin. */
export function ticksOf(span: number, most: number): number[] {
  const rough = span / most
  const unit = 10 ** Math.floor(Math.log10(Math.max(rough, 1)))
  const seconds = [1, 2, 5, 10].map(step => unit * step).find(step => step >= rough)!
  const step = rough < 30_000 ? seconds : [60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400].map(step => step * 1_000).find(step => step >= rough) ?? Math.ceil(rough / 86_400_000) * 86_400_000
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, i) => i * step)
}
