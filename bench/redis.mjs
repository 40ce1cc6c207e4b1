/** The Redis store against the clients, each doing the same operations in as few round trips. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { RedisStoreAdapter } from '../dist/index.mjs'
import { startRedis } from '../examples/redis-server.mjs'
import { inFlight, oneByOne } from './harness.mjs'
import { glide, ioredis, nodeRedis } from './peers/redis.mjs'
import { event, metadata, newMetadata, subjectOf } from './samples.mjs'

const WIDTH = 256
const WAKE_WHY = 'a thread of the client has to be woken by the main thread, and wakes it with the answer; ioredis does both on the main thread'
const MORE_WHY = 'on the main thread JSON.stringify, JSON.parse, a promise and its settling remain, which every client pays too: they and the collection of garbage are most of what is left (profile: bench/README.md). The server\'s one thread does more than for the peers, as the store keeps what nvent\'s format loses, in scripts'

export default async function (bench) {
  const server = await startRedis({ appendfsync: 'everysec' })
  const { port } = server
  const store = new RedisStoreAdapter({ connection: { host: '127.0.0.1', port }, bus: null })
  await store.init()
  const peers = { 'ioredis': await ioredis(port), 'node-redis': await nodeRedis(port), 'valkey-glide': await glide(port) }
  const names = Object.keys(peers)
  const native = {
    append: store.append.bind(store),
    read: store.read.bind(store),
    ...store.kv,
    indexAdd: store.index.add,
    indexUpdate: store.index.update,
    indexIncrement: store.index.increment,
    indexRead: store.index.read,
  }
  /** Each on keys of its own, which are named after it. */
  const all = (width, operation) => Object.fromEntries(Object.entries({ native, ...peers }).map(([name, on]) =>
    [name, n => inFlight(width, n, i => operation(on, name, i))]))
  const each = value => Object.fromEntries(names.map(name => [name, value]))

  const key = (name, i) => `${name}:${subjectOf(i)}`
  const idOf = i => `run-${(i * 7919) % 1_000}`
  const operations = {
    'append': (on, name, i) => on.append(key(`${name}:events`, i), event(i)),
    'kv.set of an object': (on, name, i) => on.set(key(`${name}:kv`, i), metadata(i)),
    'kv.get of an object': (on, name, i) => on.get(key(`${name}:kv`, i)),
    'kv.increment': (on, name, i) => on.increment(`${name}:n:${i & 255}`),
    'index.add': (on, name, i) => on.indexAdd(`${name}:index`, idOf(i), i, metadata(i)),
    'index.update': (on, name, i) => on.indexUpdate(`${name}:index`, idOf(i), { stepCount: i, emittedEvents: { shipped: i } }),
    'index.increment': (on, name, i) => on.indexIncrement(`${name}:index`, idOf(i), 'completedSteps'),
  }
  for (const [name, on] of Object.entries({ native, ...peers })) {
    await inFlight(WIDTH, 1_000, i => on.indexAdd(`${name}:index`, `run-${i}`, i, newMetadata(i)))
    await inFlight(WIDTH, 1_024, i => on.set(key(`${name}:kv`, i), metadata(i)))
    for (let i = 0; i < 30; i++) await on.append(`${name}:run`, event(i))
  }

  for (const [name, operation] of Object.entries(operations)) {
    await bench.row({
      name: `${name}, ${WIDTH} in flight`,
      ops: 5_000,
      contenders: {
        ...all(WIDTH, operation),
        ...name.startsWith('kv.set') && { 'redis-benchmark -P 16': () => redisBenchmark(port) },
      },
      targets: each(1),
      cpuTargets: each(2),
      why: MORE_WHY,
    })
  }
  await bench.row({
    name: `read a run of 30 events, ${WIDTH} in flight`,
    ops: 768,
    contenders: all(WIDTH, (on, name) => on.read(`${name}:run`)),
    targets: each(1),
    cpuTargets: each(2),
    why: 'what is returned has to be parsed on the main thread by all of them: 9 kB of JSON here, fields of text there',
  })
  await bench.row({
    name: `index.read of 50, ${WIDTH} in flight`,
    ops: 512,
    contenders: all(WIDTH, (on, name) => on.indexRead(`${name}:index`)),
    targets: each(1),
    cpuTargets: each(2),
    why: 'Redis itself is what takes the time, the same for all',
  })
  await bench.row({
    name: 'index.read of 50, one by one',
    ops: 50,
    contenders: {
      'native': n => oneByOne(n, () => native.indexRead('native:index')),
      'ioredis': n => oneByOne(n, () => peers.ioredis.indexRead('ioredis:index')),
      'ioredis, HGETALL per entry': n => oneByOne(n, () => peers.ioredis.indexReadByEntry('ioredis:index')),
    },
    targets: { 'ioredis, HGETALL per entry': 10 },
    why: 'one round trip is saved fifty times, but the page remains: by the profile about a third of the time is Redis running the script, a third reading its 850 strings and making JSON of them, a sixth JSON.parse',
  })
  for (const name of ['append', 'kv.get of an object', 'index.update']) {
    await bench.row({
      name: `${name}, one by one`,
      ops: 500,
      contenders: all(1, operations[name]),
      targets: { ioredis: 1 / 1.5 },
      why: WAKE_WHY,
    })
  }
  await Promise.all([store.close(), ...Object.values(peers).map(peer => peer.close())])
  await server.stop()
}

/** SET of the same bytes, pipelined in C: what the server can do. Its own clock counts. */
async function redisBenchmark(port) {
  const n = 20_000
  const size = JSON.stringify(metadata(0)).length
  const args = ['-p', port, '-t', 'set', '-d', size, '-P', 16, '-c', 16, '-n', n, '-r', 1024, '--csv']
  const { stdout } = await promisify(execFile)('redis-benchmark', args.map(String))
  const perSecond = Number(stdout.trim().split('\n').at(-1).split(',')[1].replaceAll('"', ''))
  return 5_000 / perSecond * 1e9
}
