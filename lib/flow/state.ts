import type { StepContext, StoreAdapter } from '../types'

/** Index of the values that runs have stored, so that they can be removed after the run's end, by any instance. */
const STATE_INDEX = 'nq:flow-state'
/** How long state is kept after the end of its run, in ms. */
export const DEFAULT_KEEP_STATE_MS = 7 * 24 * 60 * 60 * 1000
/** At least so often, in ms, ended runs are looked for. */
const SWEEP_INTERVAL_MS = 60 * 60 * 1000
/** Never more often, in ms. */
const MIN_SWEEP_INTERVAL_MS = 100
const PAGE = 500

const stateKey = (runId: string, key: string): string => `nq:flow:${runId}:${key}`
const entryId = (runId: string, key: string): string => JSON.stringify([runId, key])

interface StateEntry { runId: string, key: string, flowName: string }

/** Returns the state of a run. A key is recorded in the index before its first value is stored. */
export function stateOf(store: StoreAdapter, flowName: string, runId: string): StepContext['state'] {
  const recorded = new Set<string>()
  return {
    get: key => store.kv.get(stateKey(runId, key)),
    set: async (key, value) => {
      if (!recorded.has(key)) {
        await store.index.add(STATE_INDEX, entryId(runId, key), Date.now(), { runId, key, flowName })
        recorded.add(key)
      }
      await store.kv.set(stateKey(runId, key), value)
    },
    delete: async (key) => {
      await store.kv.delete(stateKey(runId, key))
      await store.index.delete(STATE_INDEX, entryId(runId, key))
      recorded.delete(key)
    },
  }
}

/** Removes the state of one run. */
export async function deleteState(store: StoreAdapter, runId: string): Promise<void> {
  for (let page; (page = await store.index.read(STATE_INDEX, { limit: PAGE, filter: { runId } })).length > 0;) {
    for (const { id, metadata } of page) await remove(store, id, metadata)
  }
}

async function remove(store: StoreAdapter, id: string, { runId, key }: StateEntry): Promise<void> {
  await store.kv.delete(stateKey(runId, key))
  await store.index.delete(STATE_INDEX, id)
}

/** Removes the state of runs `keepState` ms after their end: nvent's StateWiring. */
export class StateWiring {
  private timer: NodeJS.Timeout | undefined
  private sweeping: Promise<void> | undefined
  private stopped = true

  constructor(
    private readonly store: StoreAdapter,
    private readonly runIndex: (flowName: string) => string,
    private readonly keepState: number,
    private readonly failed: (error: unknown) => void,
  ) {}

  start(): void {
    this.stopped = false
    this.schedule(0)
  }

  async stop(): Promise<void> {
    this.stopped = true
    clearTimeout(this.timer)
    await this.sweeping
  }

  private schedule(delay: number): void {
    if (this.stopped) return
    this.timer = setTimeout(() => {
      this.sweeping = this.sweep().catch(this.failed).then(() => {
        this.schedule(Math.max(MIN_SWEEP_INTERVAL_MS, Math.min(SWEEP_INTERVAL_MS, this.keepState)))
      })
    }, delay).unref()
  }

  /** Looks at every stored value once. An entry whose run is gone goes as well. */
  private async sweep(): Promise<void> {
    const ended = new Map<string, Promise<boolean>>()
    for (let offset = 0; !this.stopped;) {
      const page = await this.store.index.read(STATE_INDEX, { offset, limit: PAGE })
      let kept = 0
      for (const { id, score, metadata } of page) {
        const { runId, flowName } = metadata as StateEntry
        if (!ended.has(runId)) ended.set(runId, this.isOver(flowName, runId, score))
        if (await ended.get(runId)) await remove(this.store, id, metadata)
        else kept += 1
      }
      if (page.length < PAGE) return
      offset += kept
    }
  }

  private async isOver(flowName: string, runId: string, storedAt: number): Promise<boolean> {
    const entry = await this.store.index.get(this.runIndex(flowName), runId)
    // The run's entry may be written a moment after its first value.
    if (!entry) return Date.now() - storedAt >= Math.max(this.keepState, 60_000)
    const { status, completedAt } = entry.metadata
    return status !== 'running' && typeof completedAt === 'number' && Date.now() - completedAt >= this.keepState
  }
}
