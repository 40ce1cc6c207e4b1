import type { RunSummary } from '#shared/order'

/** The newest runs, from the index. */
export default defineEventHandler(async (event): Promise<RunSummary[]> => {
  const store = useStoreAdapter()
  const limit = Math.min(Number(getQuery(event).limit) || 40, 500)
  const runs = await store.index.read(INDEX, { limit })
  return Promise.all(runs.map(async ({ id, score, metadata }) => ({
    id,
    status: metadata.status,
    startedAt: metadata.startedAt ?? score,
    completedAt: metadata.completedAt,
    events: metadata.status === 'completed' ? undefined : (await store.read(subjectOf(id))).map(toRunEvent),
  })))
})
