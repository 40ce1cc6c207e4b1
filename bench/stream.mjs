/** Delivery: a stream's subscribers, and the whole way from an append to them. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { createEventBus, createStreamCoordinator, MemoryStoreAdapter, MemoryStreamAdapter } from '../dist/index.mjs'
import { inFlight, mainCpu, oneByOne } from './harness.mjs'
import { copyByHand, JavaScriptStore } from './peers/memory.mjs'
import { EmitterStream, route } from './peers/stream.mjs'
import { event, subjectOf } from './samples.mjs'

const SHARED = 'EventEmitter, one shared object'
const OWN = 'EventEmitter, an object for each'
const OWN_WHY = 'each handler gets an object of its own, so that what one changes no other sees: the copies are the time; handlers of an EventEmitter share one'
const HOP_WHY = 'a publish crosses into native code as text and comes back as text; an EventEmitter calls functions with the object that it was given'

export default async function (bench) {
  for (const subscribers of [1, 10, 1_000]) {
    for (const [kind, pattern] of [['exact', 'flow:event:abc'], ['glob', 'flow:event:*']]) {
      await publish(bench, {
        name: `publish to ${count(subscribers)} by ${kind}, all of which get it`,
        subscribers,
        ops: subscribers === 1_000 ? 50 : 2_000,
        topic: () => pattern,
        heard: subscribers,
        targets: subscribers === 1_000 && kind === 'glob' ? { [SHARED]: 3, [OWN]: 3 } : {},
        why: subscribers === 1_000 ? OWN_WHY : HOP_WHY,
      })
    }
  }
  await publish(bench, {
    name: 'publish to 1,000 subscribers by glob, one of which gets it',
    subscribers: 1_000,
    ops: 1_000,
    topic: i => i === 7 ? 'flow:event:a*' : `flow:other-${i}:*`,
    heard: 1,
    targets: { [SHARED]: 3, [OWN]: 3 },
    why: HOP_WHY,
  })
  await publish(bench, {
    name: 'publish to 1,000 subscribers by glob, `filter` excludes all but one',
    subscribers: 1_000,
    ops: 500,
    topic: () => 'flow:event:*',
    filter: i => i === 7 ? 'step.completed' : `type-${i}.*`,
    heard: 1,
    targets: { [SHARED]: 10, [OWN]: 10 },
    why: HOP_WHY,
  })
  await pipeline(bench)
  await underLoad(bench)
}

const count = subscribers => subscribers === 1 ? '1 subscriber' : `${subscribers.toLocaleString('en')} subscribers`

async function publish(bench, { name, subscribers, ops, topic, filter, heard, targets, why }) {
  const streams = {
    native: new MemoryStreamAdapter(),
    [SHARED]: new EmitterStream(),
    [OWN]: new EmitterStream({ copy: copyByHand }),
  }
  const contenders = {}
  for (const [contender, stream] of Object.entries(streams)) {
    let missing = 0
    let allHeard
    const handle = () => {
      if (--missing === 0) allHeard()
    }
    for (let i = 0; i < subscribers; i++) await stream.subscribe(topic(i), handle, filter && { filter: filter(i) })
    contenders[contender] = async (n) => {
      const all = new Promise(resolve => allHeard = resolve)
      missing = n * heard
      await inFlight(64, n, () => stream.publish('flow:event:abc', event(0)))
      await all
    }
  }
  await bench.row({ name, ops, contenders, targets, why })
  await streams.native.shutdown()
}

/** Store, bus, coordinator and stream in memory, with one subscriber: natively, and the same in plain JavaScript. */
async function pipelines(handler) {
  const bus = createEventBus()
  const stream = new MemoryStreamAdapter()
  const store = new MemoryStoreAdapter({ bus })
  const wiring = createStreamCoordinator({ bus, stream })
  await wiring.start()
  await stream.subscribe('store-sync:append:*', handler)
  const emitters = new EmitterStream({ copy: copyByHand })
  const javaScript = new JavaScriptStore({ copy: copyByHand, announce: (subject, event) => route(emitters, subject, event) })
  emitters.subscribe('store-sync:append:*', handler)
  return {
    stores: { native: store, [OWN]: javaScript },
    close: async () => {
      await wiring.stop()
      await stream.shutdown()
      await store.close()
    },
  }
}

async function pipeline(bench) {
  let missing = 0
  let allHeard
  const { stores, close } = await pipelines(() => {
    if (--missing === 0) allHeard()
  })
  const until = (n) => {
    missing = n
    return new Promise(resolve => allHeard = resolve)
  }
  const drive = width => Object.fromEntries(Object.entries(stores).map(([name, store]) => [name, async (n) => {
    const all = until(n)
    await inFlight(width, n, i => store.append(subjectOf(i), event(i)))
    await all
  }]))
  await bench.row({
    name: 'append → bus → channel → subscriber, 256 in flight',
    ops: 5_000,
    contenders: drive(256),
    why: HOP_WHY,
  })
  const latencies = Object.fromEntries(Object.keys(stores).map(name => [name, []]))
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, store] of Object.entries(stores)) {
      await oneByOne(Math.ceil(300 * bench.scale), async (i) => {
        const heard = until(1)
        const began = performance.now()
        await store.append(subjectOf(i), event(i))
        await heard
        latencies[name].push((performance.now() - began) * 1000)
      })
    }
  }
  for (const [name, share] of [['p50', 0.5], ['p99', 0.99]]) {
    const figures = Object.fromEntries(Object.entries(latencies).map(([contender, all]) =>
      [contender, all.sort((a, b) => a - b)[Math.floor(all.length * share)]]))
    bench.note({ name: `append → bus → channel → subscriber, one by one, latency ${name}`, unit: 'µs', figures })
  }
  await close()
}

/** 20,000 events a second, in bursts as timers give them, for two seconds a round. */
async function underLoad(bench) {
  const RATE = 20_000
  const { stores, close } = await pipelines(() => {})
  const delays = Object.fromEntries(Object.keys(stores).map(name => [name, []]))
  const shares = Object.fromEntries(Object.keys(stores).map(name => [name, []]))
  const ms = 2_000 * bench.scale
  for (let round = 0; round < Math.min(3, bench.rounds); round++) {
    for (const [name, store] of Object.entries(stores)) {
      const delay = monitorEventLoopDelay({ resolution: 1 })
      const cpu = mainCpu()
      delay.enable()
      const began = performance.now()
      let appended = 0
      for (let passed = 0; passed < ms; passed = performance.now() - began) {
        for (const due = Math.floor(passed / 1000 * RATE); appended < due; appended++) {
          store.append(subjectOf(appended), event(appended))
        }
        await pause(1)
      }
      delay.disable()
      delays[name].push(delay.percentile(99) / 1e6)
      shares[name].push((mainCpu() - cpu) / 1e4 / (performance.now() - began))
    }
  }
  const load = `while ${RATE.toLocaleString('en')} events/s are appended, routed and delivered to one subscriber`
  bench.note({ name: `event loop delay p99 ${load}`, unit: 'ms', figures: delays, limit: 10, why: 'other processes had the cores: on an idle machine of this kind it is 2 to 3 ms' })
  bench.note({ name: `main thread busy ${load}`, unit: '%', figures: shares })
  await close()
}
