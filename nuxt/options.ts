/** The options that a user writes in nuxt.config. */
import type {
  AdaptersConfig, FlowDefinition, FlowSubjects, FileStoreOptions, RedisConnection, RedisStoreOptions, StreamCoordinatorOptions,
} from 'nvent-native/native'

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
    topics?: string[]
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
   * Mounts `GET {realtime.path}/metrics` with the Prometheus text of `metrics()`. Without a file that decides who may read it,
   * every request is answered with 403, except in development. Default: off.
   */
  metrics?: boolean | {
    /**
     * A server file whose default export decides who may read the metrics:
     * `(event, { resource: 'metrics' }) => boolean | Promise<boolean>`. Absent: that of `realtime`, which is called with an empty `runId`.
     */
    authorize?: string
  }
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
   * A page that shows runs, jobs and consumers, at `{realtime.path}/inspector`, and as a tab of Nuxt DevTools. Without a file that
   * decides who may see it, every request is answered with 403, except in development.
   * @default true in development, false in a build
   */
  inspector?: boolean | {
    /** A server file whose default export decides who may see and use it: `(event) => boolean | Promise<boolean>`. */
    authorize?: string
  }
  /**
   * How long requests wait while the server starts, in ms: for a data directory that another process has still locked, or
   * for Redis. Later requests that use an adapter are answered with 503 until it is open; the server goes on trying.
   * @default 10000
   */
  openTimeout?: number
}

/** `nvent` in nuxt.config where nvent itself is not installed: what `createAdapters` takes, and the wiring. */
export interface NventSection extends AdaptersConfig {
  /** What `createWiringRegistry` takes. */
  wiring?: {
    /** {@link WiringRegistryOptions.streamCoordinator}. */
    streamCoordinator?: StreamCoordinatorOptions
    /** Flows as data; those with functions are added in the hook `nvent:wiring`. false: no flow wiring. */
    flow?: false | {
      /** The flows. */
      flows?: FlowDefinition[]
      /** Where runs and their index are kept. */
      subjects?: FlowSubjects
      /** How long the state of a run is kept after its end, in ms. Default 7 days. */
      keepState?: number
    }
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

export const kindOf = (value: unknown) => Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value
export const definedOnly = (value: object) => Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined))
