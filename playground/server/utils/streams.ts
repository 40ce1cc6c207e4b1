import type { EventStream } from 'h3'

const open = new Set<EventStream>()

/** Tracks a server-sent event stream until the client disconnects or the server stops. */
export function trackEventStream(stream: EventStream) {
  open.add(stream)
  stream.onClosed(() => open.delete(stream))
}

export function endEventStreams() {
  for (const stream of open) stream.close()
}
