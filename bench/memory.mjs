/** The memory store against the same contract in plain JavaScript. */
import { createEventBus, MemoryStoreAdapter } from '../dist/index.mjs'
import { inFlight, oneByOne } from './harness.mjs'
import { copyByHand, JavaScriptStore } from './peers/memory.mjs'
import { event, metadata, newMetadata, subjectOf } from './samples.mjs'

const LIVE = 'JS, live references'
const CLONE = 'JS, structuredClone'
const HAND = 'JS, copies by hand'
const FLOOR = 'JSON.parse'
const BOTH = 'JSON both ways'

const LIVE_WHY = 'a live reference is a pointer: nothing is copied, and changing the returned object changes the store'
const TEXT_WHY = 'objects cross into the store as JSON text, so JSON.stringify is paid, which costs about what the whole operation costs on a shared object'
const APPEND_WHY = `${TEXT_WHY}; by the profile nearly half is the native call (two texts that cross, finding type, run and flow, the log and the feed, and what napi does for every call), a fifth JSON.stringify, an eighth the copy for the caller`
const PARSE_WHY = `${LIVE_WHY}; what is returned here is parsed from JSON text, see the floor`

const bothWays = n => oneByOne(n, async i => JSON.parse(JSON.stringify(event(i))))

export default async function (bench) {
  const native = new MemoryStoreAdapter({ bus: null })
  const peers = {
    [LIVE]: new JavaScriptStore(),
    [CLONE]: new JavaScriptStore({ copy: structuredClone }),
    [HAND]: new JavaScriptStore({ copy: copyByHand }),
  }
  /** The same operation on all: by the native store, and by what the JavaScript ones call it. */
  const all = (onNative, onPeer, drive = oneByOne) => ({
    native: n => drive(n, i => onNative(native, i)),
    ...Object.fromEntries(Object.entries(peers).map(([name, peer]) => [name, n => drive(n, i => onPeer(peer, i))])),
  })
  const atOnce = (n, operation) => inFlight(256, n, operation)
  const writes = { [LIVE]: 1 }
  const reads = { [FLOOR]: 1 / 1.5, [CLONE]: 1 }
  /** JSON.parse of what a read returns. */
  const floor = async (read) => {
    const text = JSON.stringify(await read(native))
    return { [FLOOR]: n => oneByOne(n, async () => JSON.parse(text)) }
  }

  const { native: bus } = createEventBus()
  await bench.row({
    name: 'floor: an empty native call; JSON.stringify and JSON.parse of an event',
    ops: 20_000,
    contenders: {
      'native': n => oneByOne(n, async () => bus.hasListeners()),
      [BOTH]: bothWays,
    },
  })

  let written = 0
  const append = ['append', (store, i) => store.append(subjectOf(written++), event(i))]
  for (const [name, drive] of [['one by one', oneByOne], ['256 in flight', atOnce]]) {
    await bench.row({
      name: `append, ${name}`,
      ops: 5_000,
      contenders: { ...all(append[1], append[1], drive), [BOTH]: bothWays },
      targets: { ...writes, [BOTH]: 1 / 1.6 },
      why: APPEND_WHY,
    })
  }

  const stores = [native, ...Object.values(peers)]
  for (const store of stores) {
    for (let i = 0; i < 30; i++) await store.append('run', event(i))
    for (let i = 0; i < 100_000 * Math.min(1, bench.scale * 10); i++) await store.append('long', event(i))
  }
  const readRow = async (name, ops, options, subject) => bench.row({
    name,
    ops,
    contenders: {
      ...all(store => store.read(subject, options), store => store.read(subject, options)),
      ...await floor(store => store.read(subject, options)),
    },
    targets: reads,
    why: PARSE_WHY,
  })
  await readRow('read a run of 30 events', 500, undefined, 'run')
  await readRow('the last 20 of 100,000 events', 1_000, { limit: 20, order: 'desc' }, 'long')
  await readRow('the last 20 of one type of 100,000 events', 500, { limit: 20, order: 'desc', types: ['step.failed'] }, 'long')

  const keyOf = i => subjectOf(i)
  await bench.row({
    name: 'kv.set of an object',
    ops: 5_000,
    contenders: all((store, i) => store.kv.set(keyOf(i), metadata(i)), (store, i) => store.set(keyOf(i), metadata(i))),
    targets: writes,
    why: TEXT_WHY,
  })
  for (const store of stores) for (let i = 0; i < 1024; i++) await (store.kv ?? store).set(keyOf(i), metadata(i))
  await bench.row({
    name: 'kv.get of an object',
    ops: 5_000,
    contenders: {
      ...all((store, i) => store.kv.get(keyOf(i)), (store, i) => store.get(keyOf(i))),
      ...await floor(store => store.kv.get(keyOf(1))),
    },
    targets: reads,
    why: PARSE_WHY,
  })
  await bench.row({
    name: 'kv.increment',
    ops: 20_000,
    contenders: all((store, i) => store.kv.increment(`n:${i & 255}`), (store, i) => store.increment(`n:${i & 255}`)),
    targets: writes,
    why: 'an empty native call alone costs several times an addition to a number in a Map, see the floor',
  })

  for (const size of [1_000, 10_000, 100_000]) await index(bench, size, { native, stores, all, floor, writes, reads })
}

async function index(bench, size, { native, stores, all, floor, writes, reads }) {
  const key = `index:${size}`
  const among = `among ${size.toLocaleString('en')}`
  const entries = Math.ceil(size * Math.min(1, bench.scale * 10))
  for (const store of stores) {
    const add = store === native ? store.index.add : store.indexAdd.bind(store)
    for (let i = 0; i < entries; i++) await add(key, `run-${i}`, i, newMetadata(i))
  }
  // A step that no power of two shares spreads over the whole index.
  const idOf = i => `run-${(i * 7919) % entries}`
  const both = (method, nativeArgs) => all((store, i) => store.index[method](key, ...nativeArgs(i)), (store, i) =>
    store[`index${method[0].toUpperCase()}${method.slice(1)}`](key, ...nativeArgs(i)))
  const write = (name, ops, method, args) =>
    bench.row({ name: `${name} ${among}`, ops, contenders: both(method, args), targets: writes, why: TEXT_WHY })
  const read = async (name, ops, options, targets, why = PARSE_WHY) => bench.row({
    name: `${name} ${among}`,
    ops,
    contenders: { ...both('read', () => [options]), ...await floor(store => store.index.read(key, options)) },
    targets,
    why,
  })

  await write('index.add with another score', 2_000, 'add', i => [idOf(i), i, metadata(i)])
  await write('index.update, a deep merge', 2_000, 'update', i => [idOf(i), { stepCount: i, emittedEvents: { shipped: i } }])
  await write('index.increment', 5_000, 'increment', i => [idOf(i), 'completedSteps'])
  if (size === 1_000) {
    await bench.row({
      name: `index.get ${among}`,
      ops: 5_000,
      contenders: { ...both('get', i => [idOf(i)]), ...await floor(store => store.index.get(key, 'run-1')) },
      targets: reads,
      why: PARSE_WHY,
    })
  }
  await read('index.read, the newest 50', 300, undefined, reads)
  await read('index.read, 10 from the middle', 500, { offset: entries >> 1, limit: 10 }, { ...reads, [LIVE]: 1 })
  await read('index.read, filter that one in ten matches, 10', 500, { filter: { status: 'running' }, limit: 10 }, { ...reads, [LIVE]: 1 })
  const none = size > 10_000 ? 10 : 50
  await bench.row({
    name: `index.read, filter that scans all and matches none ${among}`,
    ops: none,
    contenders: both('read', () => [{ filter: { status: ['stalled', 'failed'], flowName: 'flow-3' } }]),
    targets: { [LIVE]: 3 },
  })
}
