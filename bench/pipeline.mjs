/** The full path of an event: append, announcement, routing to a channel, delivery to a subscriber. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { createEventBus, createStreamCoordinator } from '../dist/index.mjs'
import { inFlight, mainCpu, oneByOne } from './harness.mjs'
import { event, subjectOf } from './samples.mjs'

const CHANNELS = 'store-sync:append:*'

/**
 * A contender's implementation of the path, created with the subscriber's handler.
 * @typedef {(handler: (event: object) => void) => Promise<{ append: (subject: string, event: object) => unknown, close: () => unknown }>} Way
 */

/** @returns {Way} on this package's bus and coordinator with its defaults (at least once on file and Redis), with a store and a stream of any backend */
export const natively = (createStore, createStream) => async (handler) => {
  const bus = createEventBus()
  const [store, stream] = [createStore(bus), createStream()]
  await Promise.all([store.init(), stream.init()])
  const wiring = createStreamCoordinator({ bus, store, stream })
  await wiring.start()
  await stream.subscribe(CHANNELS, handler)
  return {
    append: store.stream.append,
    close: async () => {
      await wiring.stop()
      await Promise.all([stream.shutdown(), store.close()])
    },
  }
}

/**
 * Measures throughput with 256 in flight, and latency one by one, whose p50 is to be at most `limit` µs and at most so many times that
 * of others. `ways` are keyed by contender, ours first.
 */
export async function fullPath(bench, { on, ways, ops = 5_000, single = 300, limit, times, why }) {
  let missing = 0
  let allReceived
  const opened = {}
  for (const [name, open] of Object.entries(ways)) {
    opened[name] = await open(() => {
      if (--missing === 0) allReceived()
    })
  }
  const until = (n) => {
    missing = n
    return new Promise(resolve => allReceived = resolve)
  }
  const name = `append → bus → channel → subscriber, ${on}`
  await bench.row({
    name: `${name}, 256 in flight`,
    ops,
    contenders: Object.fromEntries(Object.entries(opened).map(([name, { append }]) => [name, async (n) => {
      const all = until(n)
      await inFlight(256, n, i => append(subjectOf(i), event(i)))
      await all
    }])),
    why,
  })
  const shares = { p50: 0.5, p99: 0.99 }
  const figures = { p50: {}, p99: {} }
  for (let round = 0; round < bench.rounds; round++) {
    for (const [name, { append }] of Object.entries(opened)) {
      const latencies = []
      await oneByOne(Math.ceil(single * bench.scale), async (i) => {
        const received = until(1)
        const began = performance.now()
        await append(subjectOf(i), event(i))
        await received
        latencies.push((performance.now() - began) * 1000)
      })
      latencies.sort((a, b) => a - b)
      for (const share in shares) (figures[share][name] ??= []).push(latencies[Math.floor(latencies.length * shares[share])])
    }
  }
  bench.note({ name: `${name}, one by one, latency p50`, unit: 'µs', figures: figures.p50, limit, times, why })
  bench.note({ name: `${name}, one by one, latency p99`, unit: 'µs', figures: figures.p99 })
  await Promise.all(Object.values(opened).map(({ close }) => close()))
}

/** 20,000 events a second, in bursts as timers give them, for two seconds per round: measures the event loop's delay. */
export async function underLoad(bench, { on, ways, times, why }) {
  const RATE = 20_000
  const delays = {}
  const shares = {}
  const ms = 2_000 * bench.scale
  for (const [name, open] of Object.entries(ways)) {
    const { append, close } = await open(() => {})
    for (let round = 0; round < Math.min(3, bench.rounds); round++) {
      const delay = monitorEventLoopDelay({ resolution: 1 })
      const cpu = mainCpu()
      delay.enable()
      const began = performance.now()
      const under = new Set()
      let appended = 0
      for (let passed = 0; passed < ms; passed = performance.now() - began) {
        for (const due = Math.floor(passed / 1000 * RATE); appended < due; appended++) {
          const one = Promise.resolve(append(subjectOf(appended), event(appended))).finally(() => under.delete(one))
          under.add(one)
        }
        await pause(1)
      }
      delay.disable()
      ;(delays[name] ??= []).push(delay.percentile(99) / 1e6)
      ;(shares[name] ??= []).push((mainCpu() - cpu) / 1e4 / (performance.now() - began))
      await Promise.all(under)
    }
    await close()
  }
  const load = `while ${RATE.toLocaleString('en')} events/s are appended, routed and delivered to one subscriber, ${on}`
  bench.note({
    name: `event loop delay p99 ${load}`,
    unit: 'ms',
    figures: delays,
    limit: 10,
    why: 'other processes had the cores: on an idle machine of this kind it is 2 to 3 ms',
  })
  bench.note({ name: `main thread busy ${load}`, unit: '%', figures: shares, times, why })
}
