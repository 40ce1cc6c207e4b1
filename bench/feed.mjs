/** What following the log costs: a durable consumer beside reading the feed, and appends with the coordinator on. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import {
  createEventBus, createStreamCoordinator, FileStoreAdapter, MemoryStoreAdapter, MemoryStreamAdapter, RedisStoreAdapter, RedisStreamAdapter,
} from '../dist/index.mjs'
import { startRedis } from '../examples/redis-server.mjs'
import { inFlight } from './harness.mjs'
import { event } from './samples.mjs'

const EVENTS = 100_000
const APPENDS = 5_000

export default async function (bench) {
  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  const server = await startRedis({ appendfsync: 'everysec' })
  const { port } = server
  let n = 0
  const backends = {
    'in memory': { store: bus => new MemoryStoreAdapter({ bus }), stream: () => new MemoryStreamAdapter() },
    'on files': { store: bus => new FileStoreAdapter({ dataDir: join(folder, `${n++}`), bus }), stream: () => new MemoryStreamAdapter() },
    'on Redis': {
      store: bus => new RedisStoreAdapter({ connection: { port }, prefix: `s${n++}`, bus }),
      stream: () => new RedisStreamAdapter({ connection: { port } }),
    },
  }
  try {
    for (const [place, backend] of Object.entries(backends)) {
      await consuming(bench, place, backend)
      await coordinated(bench, place, backend)
    }
  }
  finally {
    rmSync(folder, { recursive: true })
    await server.stop()
  }
}

/** Each takes every event of the store once. */
async function consuming(bench, place, { store: create }) {
  const store = create(null)
  await store.init()
  const events = Math.ceil(EVENTS * bench.scale)
  await inFlight(1_024, events, i => store.append(`nq:flow:${i % 100}`, event(i)))
  let consumers = 0
  await bench.row({
    name: `a durable consumer of ${EVENTS.toLocaleString('en')} events, ${place}`,
    ops: EVENTS,
    contenders: {
      'native': async (count) => {
        let missing = count
        let allHandled
        const all = new Promise(resolve => allHandled = resolve)
        const consumer = await store.consume(`c${consumers++}`, () => {
          if (--missing === 0) allHandled()
        }, { from: 'beginning' })
        await all
        await consumer.stop()
      },
      'feed.read': async () => {
        let after
        for (let page; (page = await store.feed.read({ after })).length > 0;) after = page.at(-1).position
      },
    },
    targets: { 'feed.read': 1 / 1.3 },
    why: 'handlers are called one by one, and their promises awaited',
  })
  await store.close()
}

/** Appends with a coordinator that publishes each on two channels that nothing is subscribed to, and without one. */
async function coordinated(bench, place, { store: create, stream: createStream }) {
  const made = async (withCoordinator) => {
    const bus = createEventBus()
    const store = create(bus)
    await store.init()
    const stream = createStream()
    await stream.init()
    const coordinator = createStreamCoordinator({ bus, store, stream })
    if (withCoordinator) await coordinator.start()
    return { append: i => store.append(`nq:flow:${i % 100}`, event(i)), close: async () => {
      await coordinator.stop()
      await stream.shutdown()
      await store.close()
    } }
  }
  const [coordinated, alone] = [await made(true), await made(false)]
  for (const [width, ops] of [[256, APPENDS], [1, APPENDS / 5]]) {
    const targets = place === 'in memory' ? {} : { 'without a coordinator': 1 / 1.2 }
    await bench.row({
      name: `append with a coordinator that publishes, ${width === 1 ? 'one by one' : `${width} in flight`}, ${place}`,
      ops,
      contenders: {
        'native': count => inFlight(width, count, coordinated.append),
        'without a coordinator': count => inFlight(width, count, alone.append),
      },
      targets,
      cpuTargets: targets,
      why: 'what is published is routed, made into messages and sent by the same two cores',
    })
  }
  await coordinated.close()
  await alone.close()
}
