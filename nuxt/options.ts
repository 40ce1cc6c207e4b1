/** The options a user writes in nuxt.config, and how they are checked. */
import type {
  AdaptersConfig, FileQueueOptions, FlowDefinition, FileStoreOptions, RedisConnection, RedisStoreOptions, StreamCoordinatorOptions,
} from 'nvent-native/native'
import { isLeaf, Leaf, type Group } from './schema.js'

/** `nventNative` in nuxt.config: what nvent's own section has no word for. */
export interface ModuleOptions {
  /**
   * With nvent installed: take the places of its `memory`, `file` and `redis` adapters, so that the app changes
   * nothing else. `false` registers `native-memory`, `native-file` and `native-redis` only.
   * @default true
   */
  replace?: boolean
  /**
   * What an acknowledged write of the file adapters survives: `os` the process being killed, `disk` power loss too.
   * @default 'os'
   */
  durability?: 'os' | 'disk'
  /** Topics (globs) that streams on Redis keep, so that `fromBeginning` and `group` work on them. A memory stream keeps `maxLen` events of every topic. */
  retain?: {
    /** Which topics, as globs. */
    topics: string[]
    /** Events kept for each topic. */
    maxLen?: number
  }
  /** What the file store keeps. Default: everything. */
  retention?: FileStoreOptions['retention']
  /** Trimming of the event streams of the Redis store. */
  trim?: NonNullable<RedisStoreOptions['streams']>['trim']
  /** Options of the StreamCoordinator; they win over `nvent.wiring.streamCoordinator`. */
  coordinator?: StreamCoordinatorOptions
  /** Events of runs for the browser: mounts `GET {path}/runs/{runId}/events` and auto-imports `useFlowRun`. Default: off. */
  realtime?: {
    /**
     * Where it is mounted.
     * @default '/_nvent'
     */
    path?: string
    /**
     * A server file whose default export decides who may follow a run: `(event, { runId }) => boolean | Promise<boolean>`.
     * Without it every request is answered with 403, except in development.
     */
    authorize?: string
  }
  /**
   * Mounts `GET {realtime.path}/metrics` with the Prometheus text of `metrics()`. `authorize` is a server file whose default export
   * decides who may read it, `(event, { resource: 'metrics' }) => boolean | Promise<boolean>`; by default that of `realtime`, which is
   * called with an empty `runId`. Without either every request is answered with 403, except in development. Default: off.
   */
  metrics?: boolean | { authorize?: string }
  /**
   * A server file whose default export is the triggers, or a function that returns them: see `createTriggerWiring`. Mounts
   * `POST {realtime.path}/webhooks/{trigger}` for signed requests. Not with nvent, whose own triggers are in charge.
   */
  triggers?: string
  /**
   * A server file whose default export is the webhooks that events are sent to, or a function that returns them: see
   * `createWebhookWiring`, which is also for use with nvent; this option is not.
   */
  webhooks?: string
  /**
   * A page that shows runs, jobs and consumers, at `{realtime.path}/inspector`, and as a tab of Nuxt DevTools. `authorize` is a
   * server file whose default export decides who may see and use it: `(event) => boolean | Promise<boolean>`. Without it every
   * request is answered with 403, except in development.
   * @default true in development, false in a build
   */
  inspector?: boolean | { authorize?: string }
  /**
   * How long requests wait while the server starts, in ms: for a data directory that another process has still locked, or
   * for Redis. Later requests that use an adapter are answered with 503 until it is open; the server goes on trying.
   * @default 10000
   */
  openTimeout?: number
}

/** `nvent` in nuxt.config where nvent itself is not installed. */
export interface NventSection extends Pick<AdaptersConfig, 'connections'> {
  store?: Omit<NonNullable<AdaptersConfig['store']>, 'file'> & {
    file?: Partial<Pick<FileStoreOptions, 'dataDir' | 'durability' | 'retention'>>
    /** Older name of `redis`. */
    connection?: RedisConnection
    /** {@link RedisStoreOptions.streams}. */
    streams?: { trim?: NonNullable<RedisStoreOptions['streams']>['trim'] }
  }
  stream?: NonNullable<AdaptersConfig['stream']> & {
    /** Older name of `redis`. */
    connection?: RedisConnection
  }
  queue?: Omit<NonNullable<AdaptersConfig['queue']>, 'file'> & { file?: Partial<Pick<FileQueueOptions, 'dataDir' | 'durability'>> }
  wiring?: {
    streamCoordinator?: StreamCoordinatorOptions
    /** Flows as data; those with functions are added in the hook `nvent:wiring`. */
    flow?: false | { flows?: FlowDefinition[], subjects?: { run?: string, runIndex?: string } }
  }
}

/** Sections of nvent's Redis packages, which are read also where the packages are gone. */
export interface AdapterPackages {
  nventStoreRedis?: { connection?: RedisConnection, prefix?: string, streams?: { trim?: NonNullable<RedisStoreOptions['streams']>['trim'] } }
  nventStreamRedis?: { connection?: RedisConnection, prefix?: string }
}

/** Returns `value`, with what it leaves open filled in from `defaults`, at every depth. */
export function withDefaults<T extends object>(value: T, defaults: object): T {
  const merged: Record<string, unknown> = { ...defaults, ...definedOnly(value) }
  for (const [key, inner] of Object.entries(defaults)) {
    if (kindOf(inner) === 'object' && kindOf(merged[key]) === 'object') merged[key] = withDefaults(merged[key] as object, inner)
  }
  return merged as T
}

/**
 * Returns one line for each wrong option in `value`, with the nearest right one. `name` gives what the user wrote for a
 * path; by default the path itself.
 */
export function problems(value: unknown, schema: Leaf | Group, path: string, name = (path: string) => path): string[] {
  if (value === undefined || (value === null && !isLeaf(schema))) return []
  if (isLeaf(schema)) {
    const problem = leafProblem(value, schema)
    return problem === undefined ? [] : [`${name(path)} is ${show(value)}${problem}`]
  }
  if (kindOf(value) !== 'object') return [`${name(path)} is ${show(value)}, but must be an object`]
  return Object.entries(value as object).flatMap(([option, inner]) => Object.hasOwn(schema, option)
    ? problems(inner, schema[option]!, `${path}.${option}`, name)
    : [`${path}.${option} is not an option: ${nearest(option, Object.keys(schema))}`])
}

function leafProblem(value: unknown, { kinds, rule: { values, min = -Infinity, max = Infinity } }: Leaf): string | undefined {
  if (kinds.includes('any')) return
  if (!(kinds as readonly string[]).includes(kindOf(value))) return `, but must be a ${kinds.join(' or ')}`
  if (values && !values.includes(value as string)) return `: ${nearest(value as string, values)}`
  if (typeof value === 'number' && !(Number.isInteger(value) && value >= min && value <= max)) {
    return `, but must be a whole number from ${min}${max < Number.MAX_SAFE_INTEGER ? ` to ${max}` : ''}`
  }
}

/** Returns the part of `value` that the schema knows, with numbers for numeric text where it takes numbers. */
export function lenient(value: unknown, schema: Leaf | Group): any {
  if (isLeaf(schema)) {
    return schema.kinds.includes('number') && typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value)) ? Number(value) : value
  }
  if (kindOf(value) !== 'object') return undefined
  const known = Object.entries(value as object).filter(([key, inner]) => Object.hasOwn(schema, key) && inner !== undefined && inner !== null)
  return Object.fromEntries(known.map(([key, inner]) => [key, lenient(inner, schema[key]!)]))
}

export const kindOf = (value: unknown) => Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value
const definedOnly = (value: object) => Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined))
const show = (value: unknown) => JSON.stringify(value)

/** Returns the known name that `wrong` most resembles, for a message; undefined where none is near. */
export function nearestName(wrong: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map(name => ({ name, off: distance(wrong.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.off - b.off)
  return best && best.off <= Math.max(2, wrong.length / 3) ? best.name : undefined
}

function nearest(wrong: string, known: readonly string[]): string {
  const name = nearestName(wrong, known)
  return `${name === undefined ? '' : `did you mean '${name}'? `}Known: ${known.join(', ')}`
}

/** Returns how many letters must be changed, added or removed to turn one word into the other (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]!
}
