/** Measures the same work done by several contenders, interleaved, in rounds. */
import { readFileSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'

/**
 * A row of a table.
 * @typedef {object} Row
 * @property {string} name what is done, and the guarantee where it differs between contenders
 * @property {number} ops how many operations one round does
 * @property {Record<string, Contender>} contenders `native` and those it is compared with
 * @property {Record<string, number>} [targets] by contender: its time divided by ours is to be at least this
 * @property {Record<string, number>} [cpuTargets] the same for the CPU time of the main thread
 * @property {string} [why] why a target is missed
 */
/**
 * Does `n` operations and resolves when all are done. Its own `ops` is for one that would take too long otherwise.
 * A number returned is the nanoseconds it took, for one that is measured elsewhere.
 * @typedef {((n: number) => unknown) | { ops: number, run: (n: number) => unknown }} Contender
 */

export class Bench {
  results = []

  constructor({ rounds = 7, scale = 1 } = {}) {
    this.rounds = rounds
    this.scale = scale
  }

  /** Measures a row. */
  async row({ name, ops, contenders, targets = {}, cpuTargets = {}, why }) {
    const all = Object.entries(contenders).map(([contender, given]) => {
      const { run, ops: own = ops } = typeof given === 'function' ? { run: given } : given
      return { contender, run, ops: Math.max(1, Math.ceil(own * this.scale)), samples: [] }
    })
    globalThis.gc?.()
    // The first round warms up. Each round begins with another contender.
    for (let round = -1; round < this.rounds; round++) {
      for (let i = 0; i < all.length; i++) {
        const { run, ops, samples } = all[(i + round + all.length) % all.length]
        const sample = await measure(run, ops)
        if (round >= 0) samples.push(sample)
      }
    }
    const [native, ...peers] = all
    this.results.push({
      name,
      why,
      contenders: Object.fromEntries(all.map(({ contender, samples }) => [contender, summary(samples)])),
      ratios: peers.map(({ contender, samples }) => ({
        to: contender,
        time: ratio(samples, native.samples, 'ns', targets[contender]),
        cpu: ratio(samples, native.samples, 'cpu', cpuTargets[contender]),
      })),
    })
    progress(this.results.at(-1))
  }

  /**
   * Notes what was measured in another way: figures by contender, each lower the better, against a limit, or against those of
   * other contenders in the same rounds, of which ours are to be at most so many times.
   */
  note({ name, unit, figures, limit, times = {}, why }) {
    const contenders = Object.fromEntries(Object.entries(figures).map(([contender, values]) => [contender, spread([values].flat())]))
    const { native } = contenders
    const most = Object.entries(times).map(([to, limit]) => {
      const ratio = spread([figures.native].flat().map((value, round) => value / [figures[to]].flat()[round]))
      return { to, limit, ratio, met: ratio.median <= limit }
    })
    this.results.push({ name, unit, why, contenders, most, ...limit !== undefined && { limit, met: native.median <= limit } })
    progress(this.results.at(-1))
  }
}

async function measure(run, ops) {
  globalThis.gc?.({ type: 'minor' })
  const before = process.memoryUsage()
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const cpu = mainCpu()
  const began = process.hrtime.bigint()
  const measured = await run(ops)
  const ns = typeof measured === 'number' ? measured : Number(process.hrtime.bigint() - began)
  const used = mainCpu() - cpu
  delay.disable()
  const after = process.memoryUsage()
  return {
    ns: ns / ops,
    cpu: used / ops,
    delay: delay.count > 0 ? delay.percentile(99) : 0,
    heap: after.heapUsed - before.heapUsed,
    rss: after.rss - before.rss,
  }
}

const schedstat = `/proc/self/task/${process.pid}/schedstat`

/** Returns the CPU time of the main thread in nanoseconds; on other systems than Linux that of the process, where Node has no better figure. */
export function mainCpu() {
  if (process.platform === 'linux') return Number(readFileSync(schedstat, 'latin1').split(' ')[0])
  const { user, system } = (process.threadCpuUsage ?? process.cpuUsage).call(process)
  return (user + system) * 1000
}

export function spread(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return { median: sorted[sorted.length >> 1], min: sorted[0], max: sorted.at(-1) }
}

const summary = samples => Object.fromEntries(['ns', 'cpu', 'delay', 'heap', 'rss'].map(kind => [kind, spread(samples.map(sample => sample[kind]))]))

/** Returns the peer's time divided by ours, per round. */
function ratio(peer, native, field, target) {
  const result = spread(peer.map((sample, round) => sample[field] / native[round][field]))
  return target === undefined ? result : { ...result, target, met: result.median >= target }
}

function progress({ name, unit, contenders }) {
  const figures = Object.entries(contenders).map(([contender, { ns, median }]) =>
    unit ? `${contender} ${median.toFixed(2)} ${unit}` : `${contender} ${(ns.median / 1000).toFixed(2)} µs`)
  process.stderr.write(`  ${name}: ${figures.join(', ')}\n`)
}

/** Keeps `width` operations in flight until `n` are done. */
export async function inFlight(width, n, operation) {
  let next = 0
  const worker = async () => {
    while (next < n) await operation(next++)
  }
  await Promise.all(Array.from({ length: Math.min(width, n) }, worker))
}

/** Runs the operations in sequence. */
export const oneByOne = (n, operation) => inFlight(1, n, operation)
