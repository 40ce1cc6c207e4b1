/** `GET {path}/runs/{runId}/events`: server-sent events of one run. */
import { authorize, runSubject } from '#nvent-native/realtime'
import { useStoreAdapter } from '#imports'
import { createError, defineEventHandler, getRequestHeaders, getRequestURL, getRouterParam, setResponseHeader, type H3Event } from 'h3'
import { streamRun } from 'nvent-native/native'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'

/** Open responses. They never end by themselves, and Nitro waits for them before it closes. */
const open = new Set<AbortController>()
/** Whether the server ends. A browser comes again at once, over a connection that is still there. */
let closing = false
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    closing = true
    open.forEach(controller => controller.abort())
  })
}

export default defineEventHandler(async (event) => {
  if (closing) {
    setResponseHeader(event, 'connection', 'close')
    throw createError({ statusCode: 503, statusMessage: 'Service Unavailable' })
  }
  const runId = decodeURIComponent(getRouterParam(event, 'runId')!)
  if (!await isAllowed(event, runId)) throw createError({ statusCode: 403, statusMessage: 'Forbidden' })
  const controller = new AbortController()
  const { req, res } = event.node
  const headers = Object.fromEntries(Object.entries(getRequestHeaders(event)).filter((header): header is [string, string] => header[1] !== undefined))
  const request = new Request(getRequestURL(event), { headers, signal: controller.signal })
  const response = await streamRun(runId, request, { store: useStoreAdapter(), subject: runSubject?.replaceAll('{runId}', () => runId) })
  if (!response.body || response.status !== 200) return response
  open.add(controller)
  const end = () => {
    open.delete(controller)
    controller.abort()
  }
  res.once('close', end)
  if (req.destroyed || res.destroyed) end()
  res.writeHead(200, Object.fromEntries(response.headers))
  // Piped as a Node stream: a slow client is waited for, and what it has not read is not kept.
  Readable.fromWeb(response.body as ReadableStream).on('error', () => res.destroy()).pipe(res)
  event._handled = true
})

/** Without a file that decides, only the development server answers. */
async function isAllowed(event: H3Event, runId: string): Promise<boolean> {
  return authorize ? await authorize(event, { runId }) === true : import.meta.dev === true
}
