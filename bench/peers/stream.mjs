/** Publish/subscribe and routing in plain JavaScript: an EventEmitter with a check of the pattern in each handler, and a map of prefixes. */
import { EventEmitter } from 'node:events'

/** Returns what decides whether a text matches a glob without classes, as one writes it by hand: a comparison where that is enough. */
export function matcher(glob) {
  if (!/[*?]/.test(glob)) return text => text === glob
  const prefix = glob.slice(0, -1)
  if (glob.endsWith('*') && !/[*?]/.test(prefix)) return text => text.startsWith(prefix)
  const pattern = compiled(glob)
  return text => pattern.test(text)
}

/** The regular expression of a glob without classes. */
export const compiled = glob => new RegExp(`^${glob.replaceAll(/[.+^${}()|\\[\]]/g, '\\$&').replaceAll('*', '.*').replaceAll('?', '.')}$`, 's')

export class EmitterStream {
  emitter = new EventEmitter().setMaxListeners(0)

  /** `copy` gives each handler an object of its own, as the native stream does. */
  constructor({ copy = event => event } = {}) {
    this.copy = copy
  }

  async publish(topic, event) {
    this.emitter.emit('event', topic, event)
    this.emitter.emit(topic, event)
  }

  /** `type` is a glob too. */
  subscribe(topic, handler, { filter } = {}) {
    const type = filter && matcher(filter)
    const handle = event => (!type || type(event.type)) && handler(this.copy(event))
    if (!/[*?]/.test(topic)) return this.emitter.on(topic, handle)
    const matches = matcher(topic)
    this.emitter.on('event', (published, event) => matches(published) && handle(event))
  }
}

/** Subscribers of prefixes in a map, and a lookup for each length of a prefix in use: patterns are a literal and a star. */
export class PrefixStream {
  handlers = new Map()
  lengths = new Set()

  constructor({ copy = event => event } = {}) {
    this.copy = copy
  }

  async publish(topic, event) {
    for (const length of this.lengths) {
      const handlers = this.handlers.get(topic.slice(0, length))
      if (handlers) for (const handler of handlers) handler(this.copy(event))
    }
  }

  subscribe(topic, handler) {
    const prefix = topic.slice(0, -1)
    this.lengths.add(prefix.length)
    if (!this.handlers.has(prefix)) this.handlers.set(prefix, [])
    this.handlers.get(prefix).push(handler)
  }
}

/** What the coordinator does with one event that was stored. */
export function route(stream, subject, event, types = new Set(['flow.start', 'flow.completed', 'flow.failed', 'flow.cancel', 'flow.stalled', 'emit'])) {
  stream.publish(`store-sync:append:${subject}`, { type: 'store.append', data: { subject, event } })
  if (types.has(event.type)) stream.publish(`flow:event:${event.runId}`, { type: event.type, data: { runId: event.runId, flowName: event.flowName, event } })
}
