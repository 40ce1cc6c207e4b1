/** How cost grows: the same operations among 10^3 to 10^6 events and index entries, on each backend. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { FileStoreAdapter, MemoryStoreAdapter, RedisStoreAdapter } from '../dist/index.mjs'
import { startRedis } from '../examples/redis-server.mjs'
import { inFlight } from './harness.mjs'
import { event, newMetadata } from './samples.mjs'

const SIZES = [1_000, 10_000, 100_000, 1_000_000]
const RUN = 20
const INDEX = 'runs'

/** What is measured, and how often: operations that look at every entry are repeated less. */
const OPERATIONS = {
  'append': { times: 300, run: (store, i, n) => store.append(`nq:flow:run-${i % (n / RUN)}`, event(i)) },
  'read a run of 20 events': { times: 200, run: (store, i, n) => store.read(`nq:flow:fixed-${i % Math.min(50, n / RUN)}`) },
  'index.update': { times: 200, run: (store, i, n) => store.index.update(INDEX, `run-${(i * 7919) % n}`, { stepCount: i }) },
  'index.read, the newest 50': { times: 100, run: store => store.index.read(INDEX) },
  'index.read, 50 from the middle': { times: 50, run: (store, _, n) => store.index.read(INDEX, { offset: n / 2, limit: 50 }) },
  'index.read, 50 from the middle by cursor': {
    times: 50, run: (store, _, n) => store.index.read(INDEX, { cursor: { id: `run-${n / 2}`, score: n / 2 }, limit: 50 }),
  },
  'index.read, filter that one in ten matches': { times: 50, run: store => store.index.read(INDEX, { filter: { status: 'running' } }) },
  'index.read, filter that none matches': { times: 5, run: store => store.index.read(INDEX, { filter: { status: 'lost' } }) },
  'feed.read, the newest 100': { times: 50, run: (store, _, __, place) => store.feed.read({ after: place, limit: 100 }) },
}

/** Why some of it grows. */
const EVERY = 'every entry is looked at, as an index has no indexes on its fields: the cost is that of a look, times the entries. Lookups that are frequent have an index of their own'
const WHY = {
  'index.read, filter that none matches, in memory': EVERY,
  'index.read, filter that none matches, on files': EVERY,
  'index.read, filter that none matches, on Redis': `${EVERY}. The server answers others after each 10,000`,
  'index.read, 50 from the middle, on files': 'SQLite steps over the entries before an offset; a page that begins at a `cursor` costs what the first page does, see the row of it',
}

export default async function (bench) {
  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  const server = await startRedis({ appendfsync: 'everysec' })
  const sizes = SIZES.filter(size => size <= 1_000_000 * bench.scale)
  const stores = {
    'in memory': () => new MemoryStoreAdapter({ bus: null }),
    'on files': () => new FileStoreAdapter({ dataDir: folder, bus: null }),
    'on Redis': () => new RedisStoreAdapter({ connection: { port: server.port }, bus: null }),
  }
  try {
    for (const [place, create] of Object.entries(stores)) await grow(bench, place, create, sizes)
  }
  finally {
    rmSync(folder, { recursive: true })
    await server.stop()
  }
}

async function grow(bench, place, create, sizes) {
  let store = create()
  await store.init()
  const rows = Object.fromEntries(Object.keys(OPERATIONS).map(name => [name, {}]))
  const opening = {}
  const stalls = {}
  let filled = 0
  for (const size of sizes) {
    await fill(store, filled, size)
    filled = size
    const column = size.toLocaleString('en')
    const head = await pageFromEnd(store)
    stalls[column] = 0
    for (const [name, { times, run }] of Object.entries(OPERATIONS)) {
      const { samples, stall } = await measure(times, i => run(store, i, size, head))
      rows[name][column] = samples
      stalls[column] = Math.max(stalls[column], stall)
    }
    if (place === 'in memory') continue
    await store.close()
    store = create()
    const began = performance.now()
    await store.init()
    await store.read('nq:flow:fixed-0')
    opening[column] = [(performance.now() - began) * 1000]
  }
  await store.close()
  for (const [name, figures] of Object.entries(rows)) bench.note({ name: `${name}, ${place}`, unit: 'µs', figures, why: WHY[`${name}, ${place}`] })
  if (Object.keys(opening).length > 0) bench.note({ name: `open and read, ${place}`, unit: 'µs', figures: opening })
  bench.note({ name: `longest stall of the event loop, ${place}`, unit: 'ms', figures: stalls })
}

/** Runs of 20 events, and an index entry for each event. The first fifty runs are those that are read. */
async function fill(store, from, to) {
  await inFlight(1_024, to - from, async (n) => {
    const i = from + n
    const run = Math.floor(i / RUN)
    await store.append(`nq:flow:${run < 50 ? `fixed-${run}` : `run-${run}`}`, event(i))
    await store.index.add(INDEX, `run-${i}`, i, newMetadata(i))
  })
}

/** Returns a position with about a hundred events after it. */
async function pageFromEnd(store) {
  const head = await store.feed.head()
  for (let i = 0; i < 100; i++) await store.append('nq:flow:page', event(i))
  return head
}

/** Microseconds of each call, one by one, and the longest stall of the event loop, in ms. */
async function measure(times, operation) {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const samples = []
  await operation(0)
  delay.enable()
  for (let i = 1; i <= times; i++) {
    const began = process.hrtime.bigint()
    await operation(i)
    samples.push(Number(process.hrtime.bigint() - began) / 1000)
    // What is done inline stalls this turn only.
    await new Promise(setImmediate)
  }
  delay.disable()
  return { samples, stall: delay.max / 1e6 }
}
