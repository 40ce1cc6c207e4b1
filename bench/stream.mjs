/** Delivery: a stream's subscribers, and the whole way from an append to them. */
import { MemoryStoreAdapter, MemoryStreamAdapter } from '../dist/index.mjs'
import { inFlight } from './harness.mjs'
import { copyByHand, JavaScriptStore } from './peers/memory.mjs'
import { EmitterStream, PrefixStream, route } from './peers/stream.mjs'
import { natively, underLoad, fullPath } from './pipeline.mjs'
import { event } from './samples.mjs'

const PREFIXES = 'Map of prefixes, an object for each'
const SHARED = 'EventEmitter, one shared object'
const OWN = 'EventEmitter, an object for each'
const OWN_WHY = 'each handler gets an object of its own, so that what one changes no other sees: the copies are the time; handlers of an EventEmitter share one'
const SHARED_WHY = 'a thousand calls of functions are most of it on both sides; the check of a prefix in each handler is what an EventEmitter does more'
const LOAD_WHY = 'an event crosses twice as text, to the store and to the subscriber: its JSON is written once and parsed once, and both take longer than the three copies by hand of the other'
const HOP_WHY = 'a publish crosses into native code as text and comes back as text; an EventEmitter calls functions with the object that it was given'

export default async function (bench) {
  for (const subscribers of [1, 10, 1_000]) {
    for (const [kind, pattern] of [['exact', 'flow:event:abc'], ['glob', 'flow:event:*']]) {
      await publish(bench, {
        name: `publish to ${count(subscribers)} by ${kind}, all of which get it`,
        subscribers,
        ops: subscribers === 1_000 ? 50 : 2_000,
        topic: () => pattern,
        deliveries: subscribers,
        why: subscribers === 1_000 ? OWN_WHY : HOP_WHY,
      })
    }
  }
  await publish(bench, {
    name: 'publish to 1,000 subscribers by glob with `shared`, all of which get it',
    subscribers: 1_000,
    ops: 500,
    topic: () => 'flow:event:*',
    options: { shared: true },
    deliveries: 1_000,
    targets: { [SHARED]: 3, [OWN]: 3 },
    why: SHARED_WHY,
  })
  await publish(bench, {
    name: 'publish to 1,000 subscribers by glob, one of which gets it',
    subscribers: 1_000,
    ops: 1_000,
    topic: i => i === 7 ? 'flow:event:a*' : `flow:other-${i}:*`,
    deliveries: 1,
    peers: { [PREFIXES]: new PrefixStream({ copy: copyByHand }) },
    targets: { [SHARED]: 1, [OWN]: 1 },
    why: HOP_WHY,
  })
  await publish(bench, {
    name: 'publish to 1,000 subscribers by glob, `filter` excludes all but one',
    subscribers: 1_000,
    ops: 500,
    topic: () => 'flow:event:*',
    filter: i => i === 7 ? 'step.completed' : `type-${i}.*`,
    deliveries: 1,
    targets: { [SHARED]: 1, [OWN]: 1 },
    why: HOP_WHY,
  })
  await fullPath(bench, { on: 'in memory', ways, limit: 25, times: { [OWN]: 4 }, why: HOP_WHY })
  await underLoad(bench, { on: 'in memory', ways, times: { [OWN]: 1.1 }, why: LOAD_WHY })
}

const count = subscribers => subscribers === 1 ? '1 subscriber' : `${subscribers.toLocaleString('en')} subscribers`

async function publish(bench, { name, subscribers, ops, topic, filter, options, deliveries, peers = {}, targets, why }) {
  const streams = {
    native: new MemoryStreamAdapter(),
    [SHARED]: new EmitterStream(),
    [OWN]: new EmitterStream({ copy: copyByHand }),
    ...peers,
  }
  const contenders = {}
  for (const [contender, stream] of Object.entries(streams)) {
    let missing = 0
    let allReceived
    const handle = () => {
      if (--missing === 0) allReceived()
    }
    for (let i = 0; i < subscribers; i++) await stream.subscribe(topic(i), handle, filter ? { filter: filter(i) } : options)
    contenders[contender] = async (n) => {
      const all = new Promise(resolve => allReceived = resolve)
      missing = n * deliveries
      await inFlight(64, n, () => stream.publish('flow:event:abc', event(0)))
      await all
    }
  }
  await bench.row({ name, ops, contenders, targets, why })
  await streams.native.shutdown()
}

/** Store, bus, coordinator and stream in memory: natively, and the same in plain JavaScript. */
const ways = {
  native: natively(bus => new MemoryStoreAdapter({ bus }), () => new MemoryStreamAdapter()),
  [OWN]: async (handler) => {
    const stream = new EmitterStream({ copy: copyByHand })
    const store = new JavaScriptStore({ copy: copyByHand, announce: (subject, event) => route(stream, subject, event) })
    stream.subscribe('store-sync:append:*', handler)
    return { append: store.append.bind(store), close: () => {} }
  },
}
