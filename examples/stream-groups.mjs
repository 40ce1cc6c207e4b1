/** A stream with groups: each message goes to one member of a group, and to every subscriber without one. */
import { MemoryStreamAdapter } from 'nvent-native'

// The same on Redis: new RedisStreamAdapter({ retain: { topics: ['mail:*'] } }), with members in several processes.
const stream = new MemoryStreamAdapter({ retain: { maxEvents: 100 } })
const MESSAGES = 6
const received = { watcher: 0, first: 0, second: 0 }
let allReceived
const done = new Promise(resolve => allReceived = resolve)
// Deliveries do not keep the process alive; in a server the open sockets do, here a timer.
const alive = setInterval(() => {}, 60_000)

const count = name => () => {
  received[name]++
  if (received.watcher === MESSAGES && received.first + received.second === MESSAGES) allReceived()
}
await stream.subscribe('mail:*', count('watcher'))
await stream.subscribe('mail:*', count('first'), { group: 'senders' })
await stream.subscribe('mail:*', count('second'), { group: 'senders' })

for (let n = 0; n < MESSAGES; n++) await stream.publish(`mail:${n}`, { type: 'mail', data: { to: `user-${n}` } })
await done
console.log(`each subscriber: ${received.watcher}; the group together: ${received.first + received.second}`)

// Retained messages, for a subscriber that comes later.
let late = 0
await new Promise((resolve) => {
  void stream.subscribe('mail:*', () => ++late === MESSAGES && resolve(), { fromBeginning: true })
})
console.log(`a late subscriber: ${late}`)

await stream.shutdown()
clearInterval(alive)
