/**
 * Calls that come through nvent are read as nvent's own adapters read them: what they do not know they ignore, and text
 * from a query string is as good as a number. Each kind is warned about once. Elsewhere the adapters stay strict.
 */
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native/native'

/** What an option is read as; `count`: a number whose 0 means "not given". */
type Kind = 'number' | 'count' | 'list' | 'as it is'
type Options = Readonly<Record<string, Kind>>

const RANGE = { limit: 'count', offset: 'number' } as const
const READ: Options = { limit: 'count', types: 'list', after: 'as it is', before: 'as it is', from: 'number', to: 'number', order: 'as it is' }
const INDEX_READ: Options = { ...RANGE, filter: 'as it is' }
const JOBS: Options = { ...RANGE, state: 'list' }
const JOB: Options = {
  jobId: 'as it is', attempts: 'count', backoff: 'as it is', delay: 'number', priority: 'number', lifo: 'as it is', timeout: 'count',
  removeOnComplete: 'as it is', removeOnFail: 'as it is',
}
const SCHEDULE: Options = { delay: 'number', cron: 'as it is', repeat: 'as it is' }
const SUBSCRIBE: Options = {
  group: 'as it is', filter: 'as it is', fromBeginning: 'as it is', ignoreOwn: 'as it is', buffer: 'count', overflow: 'as it is', shared: 'as it is',
}

/** Makes the calls of a queue lenient. */
export function lenientQueue(queue: QueueAdapter): void {
  const job = (call: string, given: any) => given?.opts === undefined ? given : { ...given, opts: read(`${call} opts`, given.opts, JOB) }
  replace(queue, 'enqueue', enqueue => (name, given) => enqueue(name, job('enqueue', given)))
  replace(queue, 'schedule', schedule => (name, given, opts) => schedule(name, job('schedule', given), read('schedule', opts, SCHEDULE)))
  replace(queue, 'getJobs', getJobs => (name, query) => getJobs(name, read('getJobs', query, JOBS)))
}

/** Makes the calls of a store lenient. */
export function lenientStore({ stream, kv, index }: StoreAdapter): void {
  replace(stream, 'read', call => (subject, opts) => call(subject, read('stream.read', opts, READ)))
  replace(index, 'read', call => (key, opts) => call(key, read('index.read', opts, INDEX_READ)))
  replace(kv, 'set', set => async (key, value, ttl) => {
    if (value === undefined) return warn('kv.set', 'value', 'is undefined: nothing is stored')
    // Without a lifetime in nvent's own adapters.
    const seconds = Number(ttl ?? 0)
    return seconds > 0 ? set(key, value, seconds) : set(key, value)
  })
}

/** Makes the calls of a stream lenient. */
export function lenientStream(stream: StreamAdapter): void {
  replace(stream, 'subscribe', call => (topic, handler, opts) => call(topic, handler, read('subscribe', opts, SUBSCRIBE)))
}

type Method = (...args: any[]) => any

function replace<T extends object>(target: T, name: keyof T & string, wrap: (method: Method) => Method): void {
  const method = (target[name] as Method).bind(target)
  Object.defineProperty(target, name, { value: wrap(method), configurable: true, writable: true })
}

/** Returns the options that are known and given, in the form that the adapters take. */
function read(call: string, given: unknown, known: Options): any {
  if (typeof given !== 'object' || given === null) return undefined
  const options: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue
    const kind = Object.hasOwn(known, name) ? known[name] : undefined
    if (kind === undefined) warn(call, name, 'is not an option of the native adapters and is ignored')
    else if (kind === 'list') options[name] = Array.isArray(value) ? value : [value]
    else if (kind === 'as it is') options[name] = value
    else {
      const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value
      if (kind === 'number' || number !== 0) options[name] = number
    }
  }
  return options
}

const MAX_WARNINGS = 100
const warned = new Set<string>()

function warn(call: string, option: string, what: string): void {
  const message = `${call}: '${option}' ${what}`
  if (warned.has(message) || warned.size >= MAX_WARNINGS) return
  warned.add(message)
  process.emitWarning(message, { type: 'NventWarning', code: 'NVENT_IGNORED' })
}
