/** Output of the examples: aligned, coloured only on a terminal. */
const colours = process.stdout.isTTY && !process.env.NO_COLOR
const paint = code => text => colours ? `\u001B[${code}m${text}\u001B[0m` : text

export const bold = paint(1)
export const dim = paint(2)
const channelColour = { 'store-sync': paint(36), 'flow': paint(33), 'client': paint(35), 'store': paint(32) }

export const say = (text = '') => console.log(text)
export const heading = text => say(`\n${bold(text)}`)
export const row = (name, text) => say(`  ${dim(name.padEnd(18))} ${text}`)

const began = performance.now()

/** Returns the time since the start. */
const elapsed = () => dim(`${(performance.now() - began).toFixed(0)} ms`.padStart(8))

/** Prints one message of a channel. */
export function message(channel, topic, text, lead = elapsed()) {
  say(`${lead}  ${channelColour[channel](channel.padEnd(10))}  ${topic.padEnd(42)} ${text}`)
}

/** Returns the quantile `share` of some durations, such as 0.99. */
export function percentile(durations, share) {
  const sorted = [...durations].sort((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * share) - 1]
}
