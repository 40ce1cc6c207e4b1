/** `{path}/inspector` and everything below it: the page, its script and style, and the requests that it makes. */
import { authorize, path, script, style } from '#nvent-native/inspector'
import { useRuntimeConfig } from '#imports'
import { createError, defineEventHandler, getQuery, getRequestHeader, getRequestHost, getRequestPath, readBody, setResponseHeaders, type H3Event } from 'h3'
import { refuseWhileClosing } from '../sse.js'
import { actions, views, type Parameters } from './api.js'
import { page } from './page.js'

/** Nothing from elsewhere, nothing inline. Nuxt DevTools shows the page in a frame of the same origin. */
const HEADERS = {
  'content-security-policy': 'default-src \'none\'; script-src \'self\'; style-src \'self\'; connect-src \'self\'; img-src data:; base-uri \'none\'; form-action \'none\'; frame-ancestors \'self\'',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
}

export default defineEventHandler(async (event) => {
  setResponseHeaders(event, HEADERS)
  if (!await isAllowed(event)) throw failure(403, 'Forbidden')
  refuseWhileClosing(event)
  const { app } = useRuntimeConfig() as { app: { baseURL: string } }
  const name = getRequestPath(event).split('?')[0]!.split(`${path}/`).at(-1)!
  if (event.method === 'POST') return act(event, name)
  if (event.method !== 'GET' && event.method !== 'HEAD') throw failure(405, 'Method Not Allowed')
  switch (name) {
    case 'app.js': return text(event, 'text/javascript', script)
    case 'app.css': return text(event, 'text/css', style)
  }
  if (!name.startsWith('api/')) return text(event, 'text/html', page(`${app.baseURL.replace(/\/$/, '')}${path}`))
  const view = named(views, name)
  return answered(() => view(getQuery(event) as Parameters, event))
})

/** Returns whether a request is answered. Without a file that decides, only the development server answers. */
async function isAllowed(event: H3Event): Promise<boolean> {
  return authorize ? await authorize(event) === true : import.meta.dev === true
}

/** Changes something, on requests of the page itself only. */
async function act(event: H3Event, name: string) {
  const action = named(actions, name)
  if (!isSameOrigin(event)) throw failure(403, 'Forbidden')
  const body = await readBody<Parameters>(event)
  if (typeof body !== 'object' || body === null) throw failure(400, 'Bad Request')
  return answered(() => action(body, event))
}

/** Returns whether a request is of the page itself. One that does not say where it comes from is refused, as is a form, which any page can send. */
function isSameOrigin(event: H3Event): boolean {
  if (!getRequestHeader(event, 'content-type')?.startsWith('application/json')) return false
  const site = getRequestHeader(event, 'sec-fetch-site')
  if (site !== undefined) return site === 'same-origin'
  const origin = getRequestHeader(event, 'origin')
  return origin !== undefined && URL.canParse(origin) && new URL(origin).host === getRequestHost(event, { xForwardedHost: true })
}

type Answer = (parameters: Parameters, event: H3Event) => Promise<unknown>

function named(known: Record<string, Answer>, path: string): Answer {
  const name = path.slice('api/'.length)
  if (!path.startsWith('api/') || !Object.hasOwn(known, name)) throw failure(404, 'Not Found')
  return known[name]!
}

/** Turns errors with a code into answers that the page can show. */
async function answered(work: () => Promise<unknown>): Promise<any> {
  try {
    return await work()
  }
  catch (error) {
    const { code, statusCode, message } = error as { code?: string, statusCode?: number, message: string }
    if (!code?.startsWith('NVENT_')) throw error
    throw createError({ statusCode: statusCode ?? (code === 'NVENT_INVALID' ? 400 : code === 'NVENT_NOT_FOUND' ? 404 : 503), statusMessage: code, message })
  }
}

function text(event: H3Event, type: string, body: string): string {
  setResponseHeaders(event, { 'content-type': `${type}; charset=utf-8` })
  return body
}

const failure = (statusCode: number, statusMessage: string) => createError({ statusCode, statusMessage })
