/** How the examples show the three channels of the coordinator. */
import { bold, message } from './terminal.mjs'

const globs = { 'store-sync': 'store-sync:*', 'flow': 'flow:*', 'client': 'client:*' }

/** Shows each message that `shows(message, channel)` is true for, after what `lead` has to say. */
export async function showChannels(stream, shows, lead) {
  for (const [channel, glob] of Object.entries(globs)) {
    await stream.subscribe(glob, (received, topic) => {
      if (shows(received, channel)) message(channel, topic, describeMessage(received), lead)
    })
  }
}

/** The run that a message is about; none where it tells of a gap. */
export const runOf = ({ data }) => data.runId ?? data.event?.runId

/** An event in a few words. */
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
