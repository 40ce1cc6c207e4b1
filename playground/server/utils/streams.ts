import type { EventStream } from 'h3'

const open = new Set<EventStream>()

/** Keeps a server-sent event stream until its reader leaves, or the server does. */
export function trackEventStream(stream: EventStream) {
  open.add(stream)
  stream.onClosed(() => open.delete(stream))
}

export function endEventStreams() {
  for (const stream of open) stream.close()
}
