/** `GET {path}/metrics`: the numbers of this process as Prometheus text. */
import { authorize } from '#nvent-native/metrics'
import { createError, defineEventHandler, setResponseHeader } from 'h3'
import { metrics } from 'nvent-native/native'

export default defineEventHandler(async (event) => {
  // Without a file that decides, only the development server answers. One for runs is given a run that does not exist.
  const isAllowed = authorize ? await authorize(event, { runId: '', resource: 'metrics' }) === true : import.meta.dev === true
  if (!isAllowed) throw createError({ statusCode: 403, statusMessage: 'Forbidden' })
  setResponseHeader(event, 'content-type', 'text/plain; version=0.0.4; charset=utf-8')
  setResponseHeader(event, 'cache-control', 'no-store')
  return metrics()
})
