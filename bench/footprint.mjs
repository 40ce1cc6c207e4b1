/** What a process pays in memory for what a store holds. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startRedis } from '../examples/redis-server.mjs'

const ENTRIES = 50_000
const SAMPLES = 3
const holder = fileURLToPath(new URL('holder.mjs', import.meta.url))

const STORES = {
  'in memory': { 'native': 'memory', 'JS, copies by hand': 'javascript' },
  'on files': { 'native': 'file', 'lmdb': 'lmdb', 'better-sqlite3': 'sqlite' },
  'on Redis': { native: 'redis', ioredis: 'ioredis' },
}

export default async function (bench) {
  // A run without packages and servers has the first.
  const places = Object.entries(STORES).slice(0, bench.scale < 1 ? 1 : undefined)
  const server = places.length > 1 && await startRedis({ appendfsync: 'everysec' })
  for (const [place, stores] of places) {
    const taken = { heap: {}, rss: {} }
    for (let sample = 0; sample < Math.min(SAMPLES, bench.rounds); sample++) {
      for (const [name, store] of Object.entries(stores)) {
        const report = await child({ store, entries: ENTRIES * bench.scale, port: server?.port })
        for (const kind in taken) (taken[kind][name] ??= []).push(report[kind])
      }
    }
    const what = `that ${ENTRIES.toLocaleString('en')} events and as many index entries take, ${place}`
    bench.note({ name: `V8 heap ${what}`, unit: 'MiB', figures: taken.heap })
    bench.note({ name: `resident memory ${what}`, unit: 'MiB', figures: taken.rss })
  }
  await server?.stop?.()
}

/** Fills a store in a process of its own. */
async function child(task) {
  const process = fork(holder, [JSON.stringify(task)], { execArgv: ['--expose-gc'] })
  const ended = once(process, 'exit')
  const [report] = await Promise.race([once(process, 'message'), ended.then(() => [])])
  if (!report) throw new Error('a process of the benchmark ended before its time')
  await ended
  return report
}
