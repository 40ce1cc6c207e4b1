/** The file store against lmdb, better-sqlite3 and files of JSON. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { FileStoreAdapter } from '../dist/index.mjs'
import { inFlight, oneByOne } from './harness.mjs'
import { JsonFiles, Lmdb, Sqlite } from './peers/file.mjs'
import { event, metadata, newMetadata, subjectOf } from './samples.mjs'

const FILES = 'JSON files'
const FLOOR = 'write + fdatasync'
const WAKE_WHY = 'one by one, both commit on the main thread with the same SQLite; JSON text in and out, the checksum, and now and then a look whether the writer thread would do better are what ours adds'
const BATCH_WHY = 'better-sqlite3 runs the 256 as one transaction in one synchronous loop: no promise, no crossing and no thread per write, and of what the main thread does here these, with the memory they take and the wakes, are most (profile: bench/README.md). lmdb writes into its memory map, and promises less: after a power loss it may not open'

export default async function (bench) {
  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  try {
    await acknowledgedByTheOs(bench, join(folder, 'os'))
    await durable(bench, join(folder, 'disk'))
  }
  finally {
    rmSync(folder, { recursive: true })
  }
}

const openAll = async (path, durability) => {
  const native = new FileStoreAdapter({ dataDir: `${path}-native`, durability, bus: null })
  await native.init()
  return { native, lmdb: new Lmdb(`${path}-lmdb`, durability === 'disk'), sqlite: new Sqlite(`${path}-sqlite`, durability === 'disk') }
}

async function acknowledgedByTheOs(bench, path) {
  const { native, lmdb, sqlite } = await openAll(path, 'os')
  const files = new JsonFiles(`${path}-json`)
  const ahead = { 'lmdb': 1 / 1.5, 'better-sqlite3': 1 }
  let n = 0
  const append = async (store) => {
    n += 1
    await store.append(subjectOf(n >> 3), event(n))
  }

  await bench.row({
    name: 'append, one by one',
    ops: 500,
    contenders: {
      'native': count => oneByOne(count, () => append(native)),
      'lmdb': count => oneByOne(count, () => append(lmdb)),
      'better-sqlite3': count => oneByOne(count, () => append(sqlite)),
      [FILES]: count => oneByOne(count, () => append(files)),
    },
    targets: ahead,
    why: WAKE_WHY,
  })
  await bench.row({
    name: 'append, 256 in flight',
    ops: 10_000,
    contenders: {
      'native': count => inFlight(256, count, () => append(native)),
      'lmdb': count => inFlight(256, count, () => append(lmdb)),
      'better-sqlite3': count => sqlite.inFlight(256, count, () => void append(sqlite)),
      [FILES]: { ops: 2_000, run: count => inFlight(256, count, () => append(files)) },
    },
    targets: ahead,
    why: BATCH_WHY,
  })

  for (const store of [native, lmdb, sqlite]) {
    for (let i = 0; i < 30; i++) await store.append('run', event(i))
  }
  await bench.row({
    name: 'read a run of 30 events',
    ops: 300,
    contenders: {
      'native': count => oneByOne(count, () => native.read('run')),
      'lmdb': count => oneByOne(count, () => lmdb.read('run')),
      'better-sqlite3': count => oneByOne(count, async () => sqlite.read('run')),
    },
  })

  await bench.row({
    name: 'kv.set of an object, 256 in flight',
    ops: 10_000,
    contenders: {
      'native': count => inFlight(256, count, i => native.kv.set(subjectOf(i), metadata(i))),
      'lmdb': count => inFlight(256, count, i => lmdb.set(subjectOf(i), metadata(i))),
      'better-sqlite3': count => sqlite.inFlight(256, count, i => sqlite.set(subjectOf(i), metadata(i))),
    },
    targets: ahead,
    why: BATCH_WHY,
  })
  await bench.row({
    name: 'kv.get of an object',
    ops: 3_000,
    contenders: {
      'native': count => oneByOne(count, i => native.kv.get(subjectOf(i))),
      'lmdb': count => oneByOne(count, i => lmdb.get(subjectOf(i))),
      'better-sqlite3': count => oneByOne(count, async i => sqlite.get(subjectOf(i))),
    },
  })

  for (const size of [1_000, 100_000]) {
    const key = `index-${size}`
    const among = `among ${size.toLocaleString('en')}`
    await inFlight(1_024, size, i => native.index.add(key, `run-${i}`, i, newMetadata(i)))
    await inFlight(1_024, size, i => lmdb.indexAdd(key, `run-${i}`, i, newMetadata(i)))
    sqlite.inFlight(1_024, size, i => sqlite.indexAdd(key, `run-${i}`, i, newMetadata(i)))
    const idOf = i => `run-${(i * 7919) % size}`
    const patch = i => ({ stepCount: i, emittedEvents: { shipped: i } })
    const contenders = {
      'native': count => inFlight(256, count, i => native.index.update(key, idOf(i), patch(i))),
      'lmdb': count => inFlight(256, count, i => lmdb.indexUpdate(key, idOf(i), patch(i))),
      'better-sqlite3': count => sqlite.inFlight(256, count, i => sqlite.indexUpdate(key, idOf(i), patch(i))),
    }
    if (size === 1_000) {
      for (let i = 0; i < size; i++) await files.indexAdd(key, `run-${i}`, i, newMetadata(i))
      contenders[FILES] = { ops: 50, run: count => oneByOne(count, i => files.indexUpdate(key, idOf(i), patch(i))) }
    }
    const targets = size === 1_000 ? { ...ahead, [FILES]: 50 } : ahead
    await bench.row({ name: `index.update ${among}, 256 in flight`, ops: 5_000, contenders, targets, why: BATCH_WHY })
    await bench.row({
      name: `index.read, the newest 50 ${among}`,
      ops: 200,
      contenders: {
        'native': count => oneByOne(count, () => native.index.read(key)),
        'lmdb': count => oneByOne(count, () => lmdb.indexRead(key, 50)),
        'better-sqlite3': count => oneByOne(count, async () => sqlite.indexRead(key, 50)),
      },
    })
  }
  await Promise.all([native.close(), lmdb.close(), sqlite.close()])
}

async function durable(bench, path) {
  const { native, lmdb, sqlite } = await openAll(path, 'disk')
  const fd = openSync(`${path}-floor`, 'w')
  const line = `${JSON.stringify({ ...event(1), id: '1700000000000-0', ts: 1_700_000_000_000 })}\n`
  const bytes = Buffer.from(line.repeat(64))
  const groups = (count) => {
    for (let done = 0; done < count; done += 64) {
      writeSync(fd, bytes)
      fdatasyncSync(fd)
    }
  }
  await bench.row({
    name: 'append, durable (fdatasync), 64 in flight',
    ops: 2_048,
    contenders: {
      'native': count => inFlight(64, count, i => native.append(subjectOf(i), event(i))),
      'lmdb': count => inFlight(64, count, i => lmdb.append(subjectOf(i), event(i))),
      'better-sqlite3': count => sqlite.inFlight(64, count, i => sqlite.append(subjectOf(i), event(i))),
      [FLOOR]: groups,
    },
    targets: { 'lmdb': 1, 'better-sqlite3': 1, [FLOOR]: 1 / 3 },
    why: 'all 64 go in one group and one sync, which is a third of the time. The rest is JSON, promises and SQL for 64 events, during which the disk has nothing to do',
  })
  await bench.row({
    name: 'append, durable (fdatasync), one by one',
    ops: 200,
    contenders: {
      'native': count => oneByOne(count, i => native.append(subjectOf(i), event(i))),
      'lmdb': count => oneByOne(count, i => lmdb.append(subjectOf(i), event(i))),
      'better-sqlite3': count => oneByOne(count, async i => sqlite.append(subjectOf(i), event(i))),
    },
  })
  closeSync(fd)
  await Promise.all([native.close(), lmdb.close(), sqlite.close()])
}
