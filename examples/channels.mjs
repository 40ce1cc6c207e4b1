/** Prints the three channels of the coordinator. */
import { bold, message } from './terminal.mjs'

const globs = { 'store-sync': 'store-sync:*', 'flow': 'flow:*', 'client': 'client:*' }

/** Subscribes to every channel and prints each message for which `shows(message, channel)` is true, prefixed with `lead`. */
export async function showChannels(stream, shows, lead) {
  for (const [channel, glob] of Object.entries(globs)) {
    await stream.subscribe(glob, (received, topic) => {
      if (shows(received, channel)) message(channel, topic, describeMessage(received), lead)
    })
  }
}

/** Returns the run id of a message; undefined for a gap. */
export const runOf = ({ data }) => data.runId ?? data.event?.runId

/** Returns a short description of an event. */
export function describe({ type, stepName, data }) {
  return [type, stepName, type === 'emit' && `→ ${data.name}`].filter(Boolean).join(' ')
}

function describeMessage({ type, data }) {
  switch (type) {
    case 'flow.trigger': return `${type}, cause ${data.cause}`
    case 'ui.flow': return bold(data.status)
    case 'stream.gap': return `${type}, reason ${data.reason}`
    default: return describe(data.event)
  }
}
