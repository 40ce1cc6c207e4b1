import type { RunEvent } from '#shared/order'

/** All events of a run. */
export default defineEventHandler(async (event): Promise<RunEvent[]> => {
  const events = await useStoreAdapter().read(subjectOf(getRouterParam(event, 'id')!))
  return events.map(toRunEvent)
})
