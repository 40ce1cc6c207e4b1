/** Responses with server-sent events, which never end by themselves: Nitro waits for them before it closes. */
import { createError, getRequestHeaders, getRequestURL, setResponseHeader, type H3Event } from 'h3'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'

/** With their requests: one that is collected passes no abort on to its signal. */
const open = new Map<AbortController, Request>()
/** Whether the server ends. A browser comes again at once, over a connection that is still there. */
let closing = false
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    closing = true
    open.forEach((_, controller) => controller.abort())
  })
}

/** Throws 503 while the server ends. */
export function refuseWhileClosing(event: H3Event) {
  if (!closing) return
  setResponseHeader(event, 'connection', 'close')
  throw createError({ statusCode: 503, statusMessage: 'Service Unavailable' })
}

/** Answers with what `respond` makes of the request, until the client leaves or the server ends. */
export async function sendEvents(event: H3Event, respond: (request: Request) => Promise<Response>): Promise<Response | undefined> {
  const controller = new AbortController()
  const { req, res } = event.node
  const headers = Object.fromEntries(Object.entries(getRequestHeaders(event)).filter((header): header is [string, string] => header[1] !== undefined))
  const request = new Request(getRequestURL(event), { headers, signal: controller.signal })
  const response = await respond(request)
  if (!response.body || response.status !== 200) return response
  open.set(controller, request)
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
}
