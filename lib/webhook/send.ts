import { json } from '../check'
import { invalid, messageOf } from '../errors'
import { addon, bridge, call } from '../native'
import type { NativeHttp } from '../native'
import { maybeInSpan, messaging, traceparentOf, tracing } from '../trace'
import type { EventRecord } from '../types'
import type { Webhook } from './definition'

/** Characters of an error that are kept. */
const MAX_ERROR_LENGTH = 500

/** What a receiver answered. */
export interface Answer { status: number, retryAfter: string | null, ms: number }

let http: NativeHttp | undefined

/** Runs a function of the user. Throws NVENT_INVALID, which says which one threw. */
function evaluate<T>(option: string, work: () => T): T {
  try {
    return work()
  }
  catch (error) {
    throw invalid(`${option}: ${messageOf(error)}`, error)
  }
}

function bodyOf({ body }: Webhook, event: EventRecord): string {
  if (!body) return json('body', { type: event.type, timestamp: new Date(event.ts).toISOString(), data: event })
  const made: unknown = evaluate('body', () => body(event))
  return typeof made === 'string' ? made : json('body', made)
}

/** Sends an event, signed now, in a span where the application traces. Rejects where no status came. `id` is its `webhook-id`. */
export async function send(webhook: Webhook, id: string, event: EventRecord): Promise<Answer> {
  return maybeInSpan(() => ({
    name: `POST ${webhook.name}`,
    kind: 'CLIENT',
    attributes: { ...messaging('deliver', 'send', webhook.name, { id, runId: event.runId }), 'http.request.method': 'POST' },
  }), async (span) => {
    const traced = span && tracing()
    const answer = await post(webhook, id, event, traced && traceparentOf(traced, span))
    span?.setAttribute('http.response.status_code', answer.status)
    if (traced && refusalOf(answer.status) !== undefined) span.setStatus({ code: traced.api.SpanStatusCode.ERROR })
    return answer
  })
}

async function post(webhook: Webhook, id: string, event: EventRecord, traceparent: string | undefined): Promise<Answer> {
  const { url, secrets, timeout, allowPrivate } = webhook
  const to: unknown = typeof url === 'string' ? url : evaluate('url', () => url(event))
  if (typeof to !== 'string') throw invalid(`url: expected a string, got ${typeof to}`)
  // The user's own comes later, and counts.
  const headers = traceparent === undefined ? webhook.headers : [['traceparent', traceparent], ...webhook.headers]
  const request = json('request', { url: to, headers, body: bodyOf(webhook, event), timeout, allowPrivate, id, secrets })
  http ??= new addon.NativeHttp(bridge)
  return call<Answer>(() => http!.post(request))
}

/** Returns why an answer is no success, or undefined where it is one. */
export function refusalOf(status: number): string | undefined {
  if (status >= 200 && status < 300) return
  if (status >= 300 && status < 400) return `the receiver answered ${status}: redirects are not followed`
  return `the receiver answered ${status}`
}

/** Returns an error as a delivery keeps it. */
export const errorText = (error: unknown): string => messageOf(error).slice(0, MAX_ERROR_LENGTH)
