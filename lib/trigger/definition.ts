import { didYouMean, object, options } from '../check'
import { invalid, messageOf, NventError } from '../errors'
import { addon, callSync } from '../native'
import type { NativeCalendar } from '../native'
import { triggerDefinition, triggerSource } from '../options/wiring.js'
import type { EventRecord, FlowDefinition, TriggerCause, TriggerDefinition, TriggerKind } from '../types'
import { Filter } from './filter'
import { HISTORY_PREFIX } from './names'

const MAX_ID_LENGTH = 200

const KINDS = ['event', 'schedule', 'webhook', 'manual'] as const

/** Which options of `on` belong to which kind. */
const OPTIONS_OF = { flow: 'event', filter: 'event', timezone: 'schedule' } as const

/** Windows of causes that start one run together. Times in ms. */
export interface Debounce { key: ((cause: TriggerCause) => string) | undefined, wait: number, maxWait: number }

/** A definition that was checked. */
export class Trigger {
  readonly id: string
  readonly kind: TriggerKind
  readonly start: string[]
  readonly input: TriggerDefinition['input']
  readonly debounce: Debounce | undefined
  readonly enabled: boolean
  /** Globs of the types of events that fire it. */
  readonly types: string[]
  readonly calendar: NativeCalendar | undefined
  /** What its requests are signed with. */
  readonly secrets: string[]
  private readonly flows: Set<string> | undefined
  private readonly filter: Filter | undefined
  /** Whether it asked for events of triggers. */
  private readonly followsTriggers: boolean

  /** Reads a definition. `at` is its path in messages. Throws NVENT_INVALID. */
  constructor(at: string, definition: TriggerDefinition) {
    const { id, on, start, input, debounce, enabled } = options(at, object(at, definition), triggerDefinition)
    this.id = id
    if (this.id.length > MAX_ID_LENGTH) throw invalid(`${at}.id: expected at most ${MAX_ID_LENGTH} characters, got ${this.id.length}`)
    const source = options(`${at}.on`, on, triggerSource)
    const kinds = KINDS.filter(kind => source[kind] !== undefined)
    if (kinds.length !== 1) throw invalid(`${at}.on: expected exactly one of ${KINDS.join(', ')}${kinds.length ? `, got ${kinds.join(' and ')}` : ''}`)
    this.kind = kinds[0]!
    for (const [option, kind] of Object.entries(OPTIONS_OF) as Array<[keyof typeof OPTIONS_OF, TriggerKind]>) {
      if (source[option] !== undefined && kind !== this.kind) throw invalid(`${at}.on.${option}: only goes with ${kind}`)
    }
    this.start = [start].flat()
    if (new Set(this.start).size < this.start.length) throw invalid(`${at}.start: names a flow twice`)
    this.input = input
    this.enabled = enabled
    this.types = this.kind === 'event' ? [source.event!].flat() : []
    this.followsTriggers = this.types.some(glob => glob.startsWith('trigger.'))
    this.flows = source.flow === undefined ? undefined : new Set([source.flow].flat())
    this.filter = source.filter === undefined ? undefined : new Filter(`${at}.on.filter`, source.filter)
    if ((source.manual as unknown) === false) throw invalid(`${at}.on.manual: expected true`)
    const { schedule, timezone } = source
    this.calendar = schedule === undefined
      ? undefined
      : callSync(() => new addon.NativeCalendar(schedule, timezone, `${at}.on.schedule`, `${at}.on.timezone`))
    this.secrets = this.kind === 'webhook' ? secretsOf(`${at}.on.webhook`, source.webhook!) : []
    this.debounce = debounceOf(`${at}.debounce`, debounce)
    if (this.debounce && (this.kind === 'schedule' || this.kind === 'manual')) {
      throw invalid(`${at}.debounce: only goes with event and webhook; causes of a ${this.kind} fire at once`)
    }
  }

  /** Returns whether an event of a matching type fires it. */
  matches(subject: string, event: EventRecord): boolean {
    if (subject.startsWith(HISTORY_PREFIX) && !this.followsTriggers) return false
    return (!this.flows || this.flows.has(event.flowName!)) && (!this.filter || this.filter.matches(event))
  }
}

function secretsOf(at: string, { secret }: { secret: string | string[] }): string[] {
  const secrets = [secret].flat()
  try {
    callSync(() => addon.NativeHttp.check(null, [], secrets))
  }
  catch (error) {
    // It begins with the name of the option.
    throw error instanceof NventError ? invalid(`${at}.${messageOf(error)}`) : error
  }
  return secrets
}

function debounceOf(at: string, debounce: TriggerDefinition['debounce']): Debounce | undefined {
  if (!debounce) return
  const { key, wait, maxWait = Infinity } = debounce
  if (maxWait < wait) throw invalid(`${at}.maxWait: expected at least wait (${wait}), got ${maxWait}`)
  return { key, wait, maxWait }
}

/** Checks definitions. With the flows that there are, also that those to start are among them and have an entry. */
export function triggersOf(what: string, definitions: unknown, flows?: FlowDefinition[]): Map<string, Trigger> {
  if (!Array.isArray(definitions)) throw invalid(`${what}: expected an array of triggers`)
  const triggers = new Map<string, Trigger>()
  definitions.forEach((definition, i) => {
    const trigger = new Trigger(`${what}[${i}]`, definition)
    if (triggers.has(trigger.id)) throw invalid(`${what}[${i}].id: ${JSON.stringify(trigger.id)} is the id of another trigger`)
    triggers.set(trigger.id, trigger)
    if (flows) checkStarts(`${what}[${i}].start`, trigger.start, flows)
  })
  return triggers
}

function checkStarts(at: string, starts: string[], flows: FlowDefinition[]): void {
  for (const start of starts) {
    const flow = flows.find(({ id }) => id === start)
    if (!flow) throw invalid(`${at}: there is no flow ${JSON.stringify(start)}${didYouMean(start, flows.map(({ id }) => id))}`)
    if (!flow.entry) throw invalid(`${at}: the flow ${JSON.stringify(start)} has no entry: which step starts it?`)
  }
}
