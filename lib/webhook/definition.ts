import { callback, finite, object, options, text } from '../check'
import { invalid, messageOf, NventError } from '../errors'
import { addon, callSync } from '../native'
import { Filter } from '../trigger/filter'
import type { EventRecord, WebhookDefinition } from '../types'

const NAME = /^[\w-]{1,100}$/
const DEFAULT_TIMEOUT_MS = 15_000
const MAX_TIMEOUT_MS = 300_000
const DEFAULT_ATTEMPTS = 8
const MAX_ATTEMPTS = 100

const WEBHOOK = {
  name: 'string', types: ['string', 'array'], flow: ['string', 'array'], filter: 'object', url: ['string', 'function'], secret: ['string', 'array'],
  headers: 'object', body: 'function', timeout: 'number', attempts: 'number', allowPrivate: 'boolean',
} as const

/** A definition that was checked. */
export class Webhook {
  readonly name: string
  /** Globs. */
  readonly types: string[]
  readonly url: WebhookDefinition['url']
  readonly secrets: string[]
  readonly headers: Array<[string, string]>
  readonly body: WebhookDefinition['body']
  /** ms */
  readonly timeout: number
  readonly attempts: number
  readonly allowPrivate: boolean
  private readonly flows: Set<string> | undefined
  private readonly filter: Filter | undefined

  /** `at` is the path of the definition in messages. */
  constructor(at: string, definition: WebhookDefinition) {
    const given = options(at, object(at, definition), WEBHOOK as any)
    for (const field of ['name', 'types', 'url']) if (given[field] === undefined) throw invalid(`${at}.${field} is required`)
    this.name = given['name']
    if (!NAME.test(this.name)) throw invalid(`${at}.name: expected 1 to 100 letters, digits, - and _, got ${JSON.stringify(this.name)}`)
    this.types = texts(`${at}.types`, given['types'])
    this.flows = given['flow'] === undefined ? undefined : new Set(texts(`${at}.flow`, given['flow']))
    this.filter = given['filter'] === undefined ? undefined : new Filter(`${at}.filter`, given['filter'])
    this.url = given['url']
    this.secrets = given['secret'] === undefined ? [] : texts(`${at}.secret`, given['secret'])
    this.headers = Object.entries(object(`${at}.headers`, given['headers'] ?? {})).map(([name, value]) => [name, text(`${at}.headers.${name}`, value)])
    this.body = given['body'] === undefined ? undefined : callback(`${at}.body`, given['body'])
    this.timeout = whole(`${at}.timeout`, given['timeout'] ?? DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS)
    this.attempts = whole(`${at}.attempts`, given['attempts'] ?? DEFAULT_ATTEMPTS, MAX_ATTEMPTS)
    this.allowPrivate = given['allowPrivate'] ?? false
    try {
      callSync(() => addon.NativeHttp.check(typeof this.url === 'string' ? this.url : null, this.headers, this.secrets))
    }
    catch (error) {
      // It begins with the name of the option.
      throw error instanceof NventError ? invalid(`${at}.${messageOf(error)}`) : error
    }
  }

  /** Returns whether an event of a matching type is delivered. */
  matches(event: EventRecord): boolean {
    return (!this.flows || this.flows.has(event.flowName!)) && (!this.filter || this.filter.matches(event))
  }
}

function texts(at: string, value: unknown): string[] {
  const list = Array.isArray(value) ? value.map((one, i) => text(`${at}[${i}]`, one)) : [text(at, value)]
  if (list.length === 0) throw invalid(`${at}: expected at least one`)
  const empty = list.indexOf('')
  if (empty >= 0) throw invalid(`${Array.isArray(value) ? `${at}[${empty}]` : at}: expected a non-empty string`)
  return list
}

function whole(at: string, value: number, max: number): number {
  if (!Number.isInteger(finite(at, value)) || value < 1 || value > max) throw invalid(`${at}: expected a whole number from 1 to ${max}, got ${value}`)
  return value
}

/** Checks definitions. */
export function webhooksOf(what: string, definitions: unknown): Map<string, Webhook> {
  if (!Array.isArray(definitions)) throw invalid(`${what}: expected an array of webhooks`)
  const webhooks = new Map<string, Webhook>()
  definitions.forEach((definition, i) => {
    const webhook = new Webhook(`${what}[${i}]`, definition)
    if (webhooks.has(webhook.name)) throw invalid(`${what}[${i}].name: ${JSON.stringify(webhook.name)} is the name of another webhook`)
    webhooks.set(webhook.name, webhook)
  })
  return webhooks
}
