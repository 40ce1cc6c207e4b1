/** Publish/subscribe and routing in plain JavaScript: an EventEmitter, and in each handler a check of its pattern. */
import { EventEmitter } from 'node:events'

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
    const type = filter && compiled(filter)
    const handle = event => (!type || type.test(event.type)) && handler(this.copy(event))
    if (!/[*?]/.test(topic)) return this.emitter.on(topic, handle)
    const pattern = compiled(topic)
    this.emitter.on('event', (published, event) => pattern.test(published) && handle(event))
  }
}

/** What the coordinator does with one event that was stored. */
export function route(stream, subject, event, types = new Set(['flow.start', 'flow.completed', 'flow.failed', 'flow.cancel', 'flow.stalled', 'emit'])) {
  stream.publish(`store-sync:append:${subject}`, { type: 'store.append', data: { subject, event } })
  if (types.has(event.type)) stream.publish(`flow:event:${event.runId}`, { type: event.type, data: { runId: event.runId, flowName: event.flowName, event } })
}
