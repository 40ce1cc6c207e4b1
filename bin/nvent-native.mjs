#!/usr/bin/env node
/** `npx nvent-native demo`: the first five minutes, without a clone. */
const [command, ...args] = process.argv.slice(2)

const USAGE = [
  'usage: nvent-native demo [--memory | --redis]',
  '',
  '  an order flow, end to end, on files in .data of the working directory: start it twice, and everything is still there',
  '  --memory  keeps nothing',
  '  --redis   two processes on one Redis (starts a redis-server of its own)',
]

if (command === 'demo') {
  process.argv = [...process.argv.slice(0, 2), ...args]
  await import('../examples/demo.mjs')
}
else {
  const wrong = command !== undefined && !['help', '--help', '-h'].includes(command)
  if (wrong) console.error(`nvent-native: there is no command ${JSON.stringify(command)}\n`)
  console[wrong ? 'error' : 'log'](USAGE.join('\n'))
  process.exitCode = wrong ? 2 : 0
}
