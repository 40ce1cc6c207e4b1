/** How the examples print: aligned, and coloured on a terminal only. */
const colours = process.stdout.isTTY && !process.env.NO_COLOR
const paint = code => text => colours ? `\u001B[${code}m${text}\u001B[0m` : text

export const bold = paint(1)
export const dim = paint(2)
export const channelColour = { 'store-sync': paint(36), 'flow': paint(33), 'client': paint(35) }

export const say = (text = '') => console.log(text)
export const heading = text => say(`\n${bold(text)}`)
export const row = (name, text) => say(`  ${dim(name.padEnd(18))} ${text}`)

const began = performance.now()

/** One message of a channel, as it arrives. */
export function message(channel, topic, text) {
  const ms = `${(performance.now() - began).toFixed(0)} ms`.padStart(8)
  say(`${dim(ms)}  ${channelColour[channel](channel.padEnd(10))}  ${topic.padEnd(42)} ${text}`)
}

/** A share of some durations, such as 0.99 for the one that 99 of 100 are not above. */
export function percentile(durations, share) {
  const sorted = [...durations].sort((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * share) - 1]
}
