/**
 * The options a user writes in nuxt.config, and the check that tells a wrong one at build time.
 */
import type { AdaptersConfig, StreamCoordinatorOptions, WiringRegistryOptions } from 'nvent-native/native'

/** `nventNative` in nuxt.config: only what nvent's own section has no word for. */
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
  /** Topics (globs) that streams keep, so that `fromBeginning` and `group` work on them. */
  retain?: { topics: string[], maxLen?: number }
  /** Options of the StreamCoordinator; they win over `nvent.wiring.streamCoordinator`. */
  coordinator?: StreamCoordinatorOptions
}

/** `nvent` in nuxt.config where nvent itself is not installed. */
export interface NventSection extends AdaptersConfig {
  wiring?: Pick<WiringRegistryOptions, 'streamCoordinator' | 'flow'>
}

type Kind = 'string' | 'number' | 'boolean' | 'list' | 'any'
/** A table of options, a kind of value, or the values that are allowed. */
type Shape = Kind | readonly string[] | { [option: string]: Shape }

const redis = { url: 'string', host: 'string', port: 'number', username: 'string', password: 'string', db: 'number', tls: 'boolean' } as const
const durability = ['os', 'disk'] as const
const retain = { topics: 'list', maxLen: 'number' } as const
const coordinator = {
  enableStoreSync: 'boolean',
  enableFlowEvents: 'boolean',
  enableClientMessages: 'boolean',
  channels: 'list',
  flowEventTypes: 'list',
  instanceId: 'string',
} as const

const moduleShape: Shape = { replace: 'boolean', durability, retain, coordinator }

const nventShape: Shape = {
  store: { adapter: ['memory', 'file', 'redis'], prefix: 'string', file: { dataDir: 'string', durability }, redis },
  stream: { adapter: ['memory', 'redis'], prefix: 'string', redis, retain },
  queue: {
    adapter: ['memory', 'file'],
    file: { dataDir: 'string' },
    defaultJobOptions: {
      attempts: 'number',
      backoff: 'any',
      delay: 'number',
      priority: 'number',
      timeout: 'number',
      removeOnComplete: 'any',
      removeOnFail: 'any',
    },
  },
  connections: { redis, file: { dataDir: 'string' } },
  wiring: { streamCoordinator: coordinator, flow: 'any' },
}

/** Throws where an option is wrong. nvent's own section is nvent's to check; without nvent it is checked here. */
export function check(options: ModuleOptions, section: NventSection, withNvent: boolean): void {
  const found = [
    ...problems(options, moduleShape, 'nventNative'),
    ...withNvent
      ? problems(section.wiring?.streamCoordinator, coordinator, 'nvent.wiring.streamCoordinator')
      : problems(section, nventShape, 'nvent'),
  ]
  if (found.length) throw new Error(['Wrong options for nvent-native in nuxt.config:', ...found].join('\n  - '))
}

/** `value`, with what it leaves open filled in from `defaults`, at every depth. */
export function withDefaults<T extends object>(value: T, defaults: object): T {
  const merged: Record<string, unknown> = { ...defaults, ...definedOnly(value) }
  for (const [key, inner] of Object.entries(defaults)) {
    if (kindOf(inner) === 'object' && kindOf(merged[key]) === 'object') merged[key] = withDefaults(merged[key] as object, inner)
  }
  return merged as T
}

/** One line for each wrong option in `value`, with the nearest right one. */
function problems(value: unknown, shape: Shape, path: string): string[] {
  if (value === undefined || value === null || shape === 'any') return []
  if (isChoice(shape)) {
    if (typeof value === 'string' && shape.includes(value)) return []
    return [`${path} is ${show(value)}: ${nearest(String(value), shape)}`]
  }
  if (typeof shape === 'string') {
    return kindOf(value) === shape ? [] : [`${path} is ${show(value)}, but must be a ${shape}`]
  }
  if (kindOf(value) !== 'object') return [`${path} is ${show(value)}, but must be an object`]
  return Object.entries(value).flatMap(([option, inner]) => Object.hasOwn(shape, option)
    ? problems(inner, shape[option]!, `${path}.${option}`)
    : [`${path}.${option} is not an option: ${nearest(option, Object.keys(shape))}`])
}

const isChoice = (shape: Shape): shape is readonly string[] => Array.isArray(shape)
const kindOf = (value: unknown) => Array.isArray(value) ? 'list' : typeof value
const definedOnly = (value: object) => Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined))
const show = (value: unknown) => JSON.stringify(value)

function nearest(wrong: string, known: readonly string[]): string {
  const [best] = known
    .map(name => ({ name, off: distance(wrong.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.off - b.off)
  const guess = best && best.off <= Math.max(2, wrong.length / 3) ? `did you mean '${best.name}'? ` : ''
  return `${guess}Known: ${known.join(', ')}`
}

/** How many letters must be changed, added or removed to turn one word into the other (Levenshtein). */
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
