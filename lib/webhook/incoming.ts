import { request as checkRequest, text } from '../check'
import { addon, callSync } from '../native'
import { triggerWirings } from '../trigger/wiring'

const MAX_BODY_BYTES = 1024 * 1024
const MAX_ID_LENGTH = 256
/** How old, or how far in the future, the timestamp of a request may be, in seconds. */
const MAX_AGE_S = 5 * 60

const reply = (status: number): Response => new Response(null, { status })

/**
 * Fires a trigger by a signed request, as Standard Webhooks has it, and resolves with the response: 202 when the cause is
 * stored, which then fires whatever happens. 401 where the signature, the time or a header is wrong, without more; 409 for a `webhook-id`
 * that was accepted before, so nothing is missing; 413 for more than 1 MB; 404 for a trigger that is not there or disabled; 405
 * for what is no POST; 400 for a body that no store takes; 503 while the store cannot be reached.
 *
 * The data is the body's JSON, or its text where it has none. Finds the trigger among those that are started in this process.
 */
export async function handleWebhook(trigger: string, request: Request): Promise<Response> {
  text('trigger', trigger)
  checkRequest('request', request)
  if (request.method !== 'POST') return new Response(null, { status: 405, headers: { allow: 'POST' } })
  const active = [...triggerWirings].map(wiring => wiring.webhook(trigger)).find(found => found !== undefined)
  if (!active) return reply(404)
  const body = await bounded(request).catch(() => null)
  if (body === null) return reply(400)
  if (!body) return reply(413)
  const id = request.headers.get('webhook-id') ?? ''
  const timestamp = request.headers.get('webhook-timestamp') ?? ''
  const signature = request.headers.get('webhook-signature') ?? ''
  const isSigned = (): boolean => callSync(() => addon.NativeHttp.verify(active.trigger.secrets, id, Number(timestamp), body, signature))
  if (id === '' || id.length > MAX_ID_LENGTH || !isRecent(timestamp) || !isSigned()) return reply(401)
  try {
    if (!await active.gate.isOn()) return reply(404)
    return reply(await active.receive(id, dataOf(body, request.headers.get('content-type'))) ? 202 : 409)
  }
  catch (error) {
    return reply((error as { code?: string }).code === 'NVENT_INVALID' ? 400 : 503)
  }
}

function isRecent(timestamp: string): boolean {
  return /^[1-9]\d{0,11}$/.test(timestamp) && Math.abs(Date.now() / 1000 - Number(timestamp)) <= MAX_AGE_S
}

/** Reads the body as far as the bound. Undefined: there is more. */
async function bounded(request: Request): Promise<Buffer | undefined> {
  if (Number(request.headers.get('content-length') ?? 0) > MAX_BODY_BYTES) return
  const chunks: Uint8Array[] = []
  let size = 0
  const reader = request.body?.getReader()
  for (;;) {
    const { done, value } = await reader?.read() ?? { done: true, value: undefined }
    if (done) return Buffer.concat(chunks)
    size += value.byteLength
    if (size > MAX_BODY_BYTES) {
      await reader!.cancel().catch(() => {})
      return
    }
    chunks.push(value)
  }
}

function dataOf(body: Buffer, contentType: string | null): unknown {
  const content = body.toString('utf8')
  if (contentType !== null && !contentType.includes('json')) return content
  try {
    return JSON.parse(content)
  }
  catch {
    return content
  }
}
