/** `GET {path}/runs/{runId}/events`: server-sent events of one run. */
import { authorize, runSubject } from '#nvent-native/realtime'
import { useStoreAdapter } from '#imports'
import { createError, defineEventHandler, type H3Event } from 'h3'
import { streamRun } from 'nvent-native/native'
import { pathParameter } from '../parameter.js'
import { refuseWhileClosing, sendEvents } from '../sse.js'

export default defineEventHandler(async (event) => {
  refuseWhileClosing(event)
  const runId = pathParameter(event, 'runId')
  if (!await isAllowed(event, runId)) throw createError({ statusCode: 403, statusMessage: 'Forbidden' })
  const subject = runSubject?.replaceAll('{runId}', () => runId)
  return sendEvents(event, request => streamRun(runId, request, { store: useStoreAdapter(), subject }))
})

/** Returns whether a request is answered. Without a file that decides, only the development server answers. */
async function isAllowed(event: H3Event, runId: string): Promise<boolean> {
  return authorize ? await authorize(event, { runId }) === true : import.meta.dev === true
}
