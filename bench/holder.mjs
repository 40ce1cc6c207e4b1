/** Fills a store and reports the memory that this takes in this process. */
import { mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { FileStoreAdapter, MemoryStoreAdapter, RedisStoreAdapter } from '../dist/index.mjs'
import { inFlight } from './harness.mjs'
import { event, newMetadata } from './samples.mjs'

const { store, entries, port } = JSON.parse(process.argv[2])
const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
process.once('exit', () => rmSync(folder, { recursive: true }))

const create = {
  memory: () => new MemoryStoreAdapter({ bus: null }),
  file: () => new FileStoreAdapter({ dataDir: folder, bus: null }),
  redis: () => new RedisStoreAdapter({ connection: { port }, bus: null }),
  javascript: async () => {
    const { copyByHand, JavaScriptStore } = await import('./peers/memory.mjs')
    return new JavaScriptStore({ copy: copyByHand })
  },
  lmdb: async () => new (await import('./peers/file.mjs')).Lmdb(join(folder, 'lmdb'), false),
  sqlite: async () => new (await import('./peers/file.mjs')).Sqlite(join(folder, 'sqlite'), false),
  ioredis: async () => (await import('./peers/redis.mjs')).ioredis(port),
}
const filled = await create[store]()
await fill(1_000, 'before')
globalThis.gc()
const before = process.memoryUsage()
await fill(entries, 'index')
globalThis.gc()
const after = process.memoryUsage()
const mib = kind => (after[kind] - before[kind]) / 2 ** 20
process.send({ heap: mib('heapUsed'), rss: mib('rss') }, async () => {
  await filled.close?.()
  process.exit()
})

async function fill(n, index) {
  await inFlight(256, n, async (i) => {
    await filled.append(`${store}:${index}:${i >> 5}`, event(i))
    await filled.indexAdd(`${store}:${index}`, `run-${i}`, i, newMetadata(i))
  })
}
