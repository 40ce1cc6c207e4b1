/** Options of wirings, and of what they are given: channels, steps, triggers, webhooks. */
import type { FlowDefinition, FlowSubjects, FlowWiringOptions, RunStateOptions, RunStreamOptions, StepOptions } from '../types/flow'
import type { TriggerDefinition, TriggerWiringOptions } from '../types/trigger'
import type { WebhookDefinition, WebhookDeliveryState, WebhookWiringOptions } from '../types/webhook'
import type { ChannelDefinition, StreamCoordinatorOptions, StreamCoordinatorParts, WiringRegistryOptions } from '../types/wiring'
import { but, callback, duration, either, flag, group, list, object, off, oneOf, oneOrMany, required, signal, text, whole, withDefault } from './schema.js'
import type { Option, Schema } from './schema.js'
import { jobOptions } from './queue.js'
import { bus } from './store.js'

const store = object<any>()
const stream = object<any>(['publish'])
const queue = object<any>(['enqueue'])
const filled = text({ filled: true })
const DAY = 86_400_000

const channel: Schema<ChannelDefinition> = { name: required(text()), types: required(list(text())), topic: required(text()), type: text() }

export const coordinatorOptions: Schema<StreamCoordinatorOptions> = {
  enableStoreSync: flag(),
  enableFlowEvents: flag(),
  enableClientMessages: flag(),
  channels: list(group(channel)),
  flowEventTypes: list(text()),
  instanceId: text(),
  delivery: oneOf(['at-least-once', 'at-most-once']),
  consumer: filled,
}

export const coordinatorParts: Schema<StreamCoordinatorParts> = { ...coordinatorOptions, bus, stream, store }

const subjects: Schema<FlowSubjects> = { run: text(), runIndex: text() }
const flows = either(list(object<any>()), callback())

export const flowWiringOptions: Schema<FlowWiringOptions> = { bus, store, queue, flows, subjects }

/** Flow wiring of a registry. */
export const registryFlow: Schema<Exclude<WiringRegistryOptions['flow'], false | undefined>> = { flows, subjects, keepState: duration() }
/** The same, where it can only be data. */
export const flowData: Schema<{ flows?: FlowDefinition[], subjects?: FlowSubjects, keepState?: number }> = { ...registryFlow, flows: list(object<any>()) }

const triggers = either(list(object<any>()), callback())
const webhooks = either(list(object<any>()), callback())

export const registryOptions: Schema<WiringRegistryOptions> = {
  streamCoordinator: coordinatorOptions,
  flow: either(off(), group(registryFlow)),
  store,
  stream,
  queue,
  bus,
  wirings: list(object<any>(['start', 'stop'])),
  triggers,
  webhooks,
}

export const triggerWiringOptions: Schema<TriggerWiringOptions> = {
  bus, stream, store, queue, flows, triggers: required(triggers),
}
export const webhookWiringOptions: Schema<WebhookWiringOptions> = {
  bus, stream, store, queue, webhooks: required(webhooks),
}

/** A step of `defineFlow`. */
export const stepOptions: Schema<StepOptions> = {
  subscribes: list(filled),
  emits: list(filled),
  queue: filled,
  attempts: whole(1),
  backoff: jobOptions.backoff as Option<any, 'optional'>,
  timeout: whole(1),
  concurrency: whole(1),
  run: required(callback<StepOptions['run']>()),
}

const secret = oneOrMany(but(filled, { secret: true }), { secret: true })
const globs = oneOrMany(filled)
const wait = duration(1, 30 * DAY)

export const triggerDefinition: Schema<TriggerDefinition, 'enabled'> = {
  id: required(text({ filled: true })),
  on: required(object<any>()),
  start: required(globs),
  input: callback(),
  debounce: group<NonNullable<TriggerDefinition['debounce']>>({ key: callback(), wait: required(wait), maxWait: wait }),
  enabled: withDefault(true, flag()),
}

type Sources = TriggerDefinition['on']
type EachOf<T> = T extends unknown ? (value: T) => void : never
type Merged<T> = EachOf<T> extends (value: infer All) => void ? All : never
/** Everything that `on` can say. */
export const triggerSource: Schema<Partial<Merged<Sources>>> = {
  event: globs,
  flow: globs,
  filter: object(),
  schedule: text(),
  timezone: text(),
  webhook: group<{ secret: string | string[] }>({ secret: required(secret) }),
  manual: flag() as Option<any, 'optional'>,
}

export const webhookDefinition: Schema<WebhookDefinition, 'timeout' | 'attempts' | 'allowPrivate'> = {
  name: required(text()),
  types: required(globs),
  flow: globs,
  filter: object(),
  url: required(either(text(), callback())),
  secret,
  headers: object<Record<string, string>>(),
  body: callback(),
  timeout: withDefault(15_000, whole(1, 300_000)),
  attempts: withDefault(8, whole(1, 100)),
  allowPrivate: withDefault(false, flag()),
}

// Calls.

export const deliveriesOptions: Schema<{ state?: WebhookDeliveryState, limit?: number }, 'limit'> = {
  state: oneOf(['pending', 'delivered', 'failed']), limit: withDefault(100, whole(0, 10_000)),
}
export const fireOptions: Schema<{ idempotencyKey?: string }> = { idempotencyKey: text() }
export const startFlowOptions: Schema<{ runId?: string }> = { runId: filled }
export const resultOptions: Schema<{ signal?: AbortSignal, timeout?: number }> = { signal: signal(), timeout: duration(-Number.MAX_VALUE) }
export const runStateOptions: Schema<RunStateOptions> = { store, subject: text(), until: text() }
export const runStreamOptions: Schema<RunStreamOptions> = { store, stream: object<any>(), subject: text() }
