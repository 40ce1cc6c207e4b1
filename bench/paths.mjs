/** From an append to a subscriber on files and on Redis, and Redis publish/subscribe alone. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { FileStoreAdapter, MemoryStreamAdapter, RedisStoreAdapter, RedisStreamAdapter } from '../dist/index.mjs'
import { startRedis } from '../examples/redis-server.mjs'
import { inFlight, oneByOne } from './harness.mjs'
import { Sqlite } from './peers/file.mjs'
import { copyByHand } from './peers/memory.mjs'
import { glidePubSub, ioredis, ioredisPubSub, nodeRedisPubSub } from './peers/redis.mjs'
import { EmitterStream, route } from './peers/stream.mjs'
import { natively, underLoad, fullPath } from './pipeline.mjs'
import { event } from './samples.mjs'

export default async function (bench) {
  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  const server = await startRedis({ appendfsync: 'everysec' })
  try {
    const ways = onFiles(folder)
    await fullPath(bench, { on: 'on files', ways, limit: 60, times: { [ON_SQLITE]: 4 } })
    await underLoad(bench, { on: 'on files', ways: { native: ways.native } })
    await fullPath(bench, { on: 'on Redis', ways: onRedis(server.port) })
    await publishSubscribe(bench, server.port)
  }
  finally {
    rmSync(folder, { recursive: true })
    await server.stop()
  }
}

const ON_SQLITE = 'better-sqlite3 and EventEmitter, a transaction each'

let files = 0
const onFiles = folder => ({
  'native': natively(bus => new FileStoreAdapter({ dataDir: join(folder, `native-${files++}`), bus }), () => new MemoryStreamAdapter()),
  [ON_SQLITE]: async (handler) => {
    const store = new Sqlite(join(folder, `sqlite-${files++}`), false)
    const stream = new EmitterStream({ copy: copyByHand })
    stream.subscribe('store-sync:append:*', handler)
    return {
      append: async (subject, event) => {
        const record = store.append(subject, event)
        route(stream, subject, record)
        return record
      },
      close: () => store.close(),
    }
  },
})

const onRedis = port => ({
  'native': natively(
    bus => new RedisStoreAdapter({ connection: { port }, bus }),
    () => new RedisStreamAdapter({ connection: { port } }),
  ),
  'ioredis, XADD and then PUBLISH': async (handler) => {
    const store = await ioredis(port)
    const stream = await ioredisPubSub(port)
    await stream.subscribe('ioredis:store-sync:append:*', handler)
    const append = async (subject, event) => {
      const record = await store.append(`ioredis:${subject}`, event)
      route({ publish: (topic, message) => stream.publish(`ioredis:${topic}`, message) }, subject, record)
      return record
    }
    return { append, close: () => Promise.all([store.close(), stream.close()]) }
  },
})

/** Channels alone: each publishes to itself, over the server. */
async function publishSubscribe(bench, port) {
  const stream = new RedisStreamAdapter({ connection: { port } })
  await stream.init()
  const peers = {
    'native': { publish: stream.publish.bind(stream), subscribe: stream.subscribe.bind(stream), close: () => stream.shutdown() },
    'ioredis': await ioredisPubSub(port),
    'node-redis': await nodeRedisPubSub(port),
    'valkey-glide': await glidePubSub(port, ['valkey-glide:news:*']),
  }
  let missing = 0
  let allReceived
  for (const [name, peer] of Object.entries(peers)) {
    await peer.subscribe(`${name}:news:*`, () => {
      if (--missing === 0) allReceived()
    })
  }
  const drive = width => Object.fromEntries(Object.entries(peers).map(([name, peer]) => [name, async (n) => {
    missing = n
    const all = new Promise(resolve => allReceived = resolve)
    await inFlight(width, n, i => peer.publish(`${name}:news:${i & 7}`, event(i)))
    await all
  }]))
  await bench.row({ name: 'publish on Redis to 1 subscriber by glob, 256 in flight', ops: 5_000, contenders: drive(256) })
  await bench.row({
    name: 'publish on Redis, received by 1 subscriber by glob, one by one',
    ops: 300,
    contenders: Object.fromEntries(Object.entries(drive(1)).map(([name, publish]) => [name, n => oneByOne(n, () => publish(1))])),
  })
  await Promise.all(Object.values(peers).map(peer => peer.close()))
}
