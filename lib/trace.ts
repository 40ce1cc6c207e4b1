import { createRequire } from 'node:module'
import { join } from 'node:path'
import { debuglog } from 'node:util'
import type { Attributes, Context, Span, Tracer, TracerProvider } from '@opentelemetry/api'

/**
 * Spans through the application's own @opentelemetry/api. Where the application has not registered a tracer provider,
 * nothing is loaded, and a call costs one look at a global.
 */

type Api = typeof import('@opentelemetry/api')

const debug = debuglog('nvent')

/** Where every copy of @opentelemetry/api 1.x keeps what is registered. */
const key = Symbol.for('opentelemetry.js.api.1')
const registered = globalThis as { [key]?: { trace?: TracerProvider } }

/** undefined: not looked for yet. null: not found. */
let api: Api | null | undefined
let last: { provider: TracerProvider, tracing: Tracing } | undefined

/** What spans are made with. */
export interface Tracing { readonly api: Api, readonly tracer: Tracer }

/** Returns what spans are made with, or undefined where the application traces nothing. */
export function tracing(): Tracing | undefined {
  const provider = registered[key]?.trace
  if (provider === undefined) return undefined
  if (last?.provider === provider) return last.tracing
  api ??= findApi()
  if (api === null) return undefined
  last = { provider, tracing: { api, tracer: api.trace.getTracer('nvent-native') } }
  return last.tracing
}

/** Loads the API as this package sees it, or else as the application does. */
function findApi(): Api | null {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports -- literal, so that @vercel/nft finds it, and optional
    return require('@opentelemetry/api') as Api
  }
  catch {
    // This package may be linked from a folder outside the application.
  }
  try {
    return createRequire(join(process.cwd(), 'package.json'))('@opentelemetry/api') as Api
  }
  catch (error) {
    debug('a tracer provider is registered, but @opentelemetry/api cannot be loaded, so there are no spans: %s', (error as Error).message)
    return null
  }
}

/** A span to make. */
export interface SpanSpec {
  /** `{operation} {destination}`, without a destination that has many values. */
  name: string
  kind: 'INTERNAL' | 'CLIENT' | 'PRODUCER' | 'CONSUMER'
  attributes: Attributes
  /** W3C trace context that the span continues. Absent or unusable: the active span. */
  parent?: unknown
}

/** Returns the attributes of an operation on a message, as the semantic conventions of OpenTelemetry name them. */
export function messaging(
  operation: string, type: 'send' | 'process', destination: string, more: { id?: string | undefined, runId?: unknown } = {},
): Attributes {
  return {
    'messaging.system': 'nvent',
    'messaging.operation.name': operation,
    'messaging.operation.type': type,
    'messaging.destination.name': destination,
    ...more.id === undefined ? {} : { 'messaging.message.id': more.id },
    ...typeof more.runId === 'string' ? { 'messaging.message.conversation_id': more.runId } : {},
  }
}

/** Runs `work` in a span, which ends when its promise settles. `work` is called before this function returns. */
export async function inSpan<T>({ api, tracer }: Tracing, spec: SpanSpec, work: (span: Span) => T | Promise<T>): Promise<T> {
  const parent = contextOf(api, spec.parent) ?? api.context.active()
  const span = tracer.startSpan(spec.name, { kind: api.SpanKind[spec.kind], attributes: spec.attributes }, parent)
  return api.context.with(api.trace.setSpan(parent, span), async () => {
    try {
      return await work(span)
    }
    catch (error) {
      fail(api, span, error)
      throw error
    }
    finally {
      span.end()
    }
  })
}

/** Runs `work`, in a span where the application traces. */
export function maybeInSpan<T>(spec: () => SpanSpec, work: (span: Span | undefined) => T | Promise<T>): T | Promise<T> {
  const traced = tracing()
  return traced ? inSpan(traced, spec(), work) : work(undefined)
}

/** Records an error, which may be any value. */
function fail(api: Api, span: Span, error: unknown): void {
  const known = error instanceof Error ? error : undefined
  if (known) span.recordException(known)
  const { code } = (known ?? {}) as { code?: unknown }
  span.setAttribute('error.type', typeof code === 'string' ? code : known?.name ?? '_OTHER')
  span.setStatus({ code: api.SpanStatusCode.ERROR, ...known ? { message: known.message } : {} })
}

const TRACEPARENT = /^[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(?:-|$)/

/** Returns the context that a W3C `traceparent` describes; undefined where it is none. */
function contextOf(api: Api, traceparent: unknown): Context | undefined {
  const match = typeof traceparent === 'string' ? TRACEPARENT.exec(traceparent) : null
  if (!match) return undefined
  const spanContext = { traceId: match[1]!, spanId: match[2]!, traceFlags: Number.parseInt(match[3]!, 16), isRemote: true }
  return api.isSpanContextValid(spanContext) ? api.trace.setSpanContext(api.context.active(), spanContext) : undefined
}

/** Returns the W3C `traceparent` of a span; undefined where it has none. */
export function traceparentOf({ api }: Tracing, span: Span | undefined): string | undefined {
  const context = span?.spanContext()
  if (!context || !api.isSpanContextValid(context)) return undefined
  return `00-${context.traceId}-${context.spanId}-${context.traceFlags.toString(16).padStart(2, '0')}`
}

/** Returns whether a span is active, so that a new one belongs to it. */
export const hasActiveSpan = ({ api }: Tracing): boolean => api.trace.getActiveSpan() !== undefined

/** Adds a trace context to the JSON text of an object, where the object has none. */
export function withTraceparent(text: string, object: unknown, traceparent: string | undefined): string {
  const { toJSON } = object as { toJSON?: unknown }
  if (traceparent === undefined || 'traceparent' in (object as object) || typeof toJSON === 'function') return text
  return `${text.slice(0, -1)}${text.length > 2 ? ',' : ''}"traceparent":"${traceparent}"}`
}

/** Returns the trace context of the active span, for an event that is published now. */
export function activeTraceparent(): string | undefined {
  const traced = tracing()
  return traced && traceparentOf(traced, traced.api.trace.getActiveSpan())
}
