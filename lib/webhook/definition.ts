import { fields, object, options, text } from '../check'
import { invalid, messageOf, NventError } from '../errors'
import { addon, callSync } from '../native'
import { webhookDefinition } from '../options/wiring.js'
import { Filter } from '../trigger/filter'
import type { EventRecord, WebhookDefinition } from '../types'

const NAME = /^[\w-]{1,100}$/

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

  /** Reads a definition. `at` is its path in messages. Throws NVENT_INVALID. */
  constructor(at: string, definition: WebhookDefinition) {
    const { name, types, flow, filter, url, secret, headers, body, timeout, attempts, allowPrivate } = options(at, object(at, definition), webhookDefinition)
    this.name = name
    if (!NAME.test(this.name)) throw invalid(`${at}.name: expected 1 to 100 letters, digits, - and _, got ${JSON.stringify(this.name)}`)
    this.types = [types].flat()
    this.flows = flow === undefined ? undefined : new Set([flow].flat())
    this.filter = filter === undefined ? undefined : new Filter(`${at}.filter`, filter)
    this.url = url
    this.secrets = [secret ?? []].flat()
    this.headers = fields(`${at}.headers`, headers ?? {}).map(([name, value]) => [name, text(`${at}.headers.${name}`, value)])
    this.body = body
    this.timeout = timeout
    this.attempts = attempts
    this.allowPrivate = allowPrivate
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
