/**
 * What an installed package must do on any runtime: every adapter, a flow and a worker thread. It is copied into an
 * empty project by `npm run release:dry`. REDIS_URL: where a server is.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import * as nvent from 'nvent-native'

if (isMainThread) await main()
else await worker()

async function main() {
  // Subscriptions and workers keep no process alive, and this one waits for nothing else.
  const alive = setInterval(() => {}, 60_000)
  const dir = mkdtempSync(join(tmpdir(), 'nvent-smoke-'))
  assert.equal(createRequire(import.meta.url)('nvent-native').getEventBus(), nvent.getEventBus())
  await store('memory', () => new nvent.MemoryStoreAdapter())
  await store('file', () => new nvent.FileStoreAdapter({ dataDir: join(dir, 'store') }))
  if (process.env.REDIS_URL) {
    const connection = { url: process.env.REDIS_URL }
    await store('redis', () => new nvent.RedisStoreAdapter({ connection }))
    await stream('redis', new nvent.RedisStreamAdapter({ connection }))
  }
  await stream('memory', new nvent.MemoryStreamAdapter())
  await queue(new nvent.FileQueueAdapter({ dataDir: join(dir, 'queue') }))
  await flow(dir)
  await thread(join(dir, 'shared'))
  rmSync(dir, { recursive: true, force: true })
  clearInterval(alive)
  console.log('smoke: ok')
}

async function store(name, open) {
  const subject = `smoke:${name}:${process.pid}:${Date.now()}`
  const index = `${subject}:index`
  const one = open()
  const { id } = await one.append(subject, { type: 'hello', data: { name } })
  await one.index.add(index, 'a', 1, { deep: { n: 1 } })
  await Promise.all(Array.from({ length: 20 }, () => one.index.increment(index, 'a', 'deep.n')))
  assert.deepEqual((await one.read(subject)).map(event => event.id), [id])
  assert.equal((await one.index.get(index, 'a')).metadata.deep.n, 21)
  await one.close()
  await assert.rejects(one.read(subject), { code: 'NVENT_CLOSED' })
  if (name === 'memory') return
  const again = open()
  assert.deepEqual((await again.read(subject)).map(event => event.data.name), [name])
  await again.close()
}

async function stream(name, adapter) {
  const topic = `smoke:${name}:${process.pid}:${Date.now()}`
  const received = new Promise((resolve) => {
    adapter.subscribe(`${topic}:*`, event => resolve(event.data)).then(() => adapter.publish(`${topic}:x`, { type: 'hello', data: 1 }))
  })
  assert.equal(await received, 1)
  await adapter.shutdown()
}

async function queue(adapter) {
  const done = new Promise((resolve) => {
    adapter.registerWorker('smoke', 'add', async (job) => {
      resolve(job.data.a + job.data.b)
    })
  })
  adapter.startProcessingQueue('smoke')
  await adapter.enqueue('smoke', { name: 'add', data: { a: 1, b: 2 } })
  assert.equal(await done, 3)
  await adapter.close()
}

async function flow(dir) {
  const adapters = await nvent.createAdapters({ connections: { file: { dataDir: join(dir, 'flow') } } })
  const double = nvent.defineFlow('double', {
    first: { emits: ['doubled'], run: (n, step) => step.emit('doubled', n * 2) },
    second: { subscribes: ['doubled'], run: ({ doubled }) => doubled + 1 },
  })
  const wiring = nvent.createWiringRegistry({ flow: { flows: [double] } })
  await wiring.start()
  const run = await nvent.startFlow(double, 20)
  assert.deepEqual((await run.result()).status, 'completed')
  const events = await adapters.store.read(`nq:flow:${run.runId}`)
  assert.equal(events.findLast(event => event.type === 'step.completed').data.result, 41)
  await wiring.stop()
  await nvent.shutdownAdapters(adapters)
}

async function thread(dataDir) {
  const here = new nvent.FileStoreAdapter({ dataDir })
  await here.append('s', { type: 'main' })
  const other = new Worker(new URL(import.meta.url), { workerData: dataDir })
  const types = await new Promise((resolve, reject) => other.once('message', resolve).once('error', reject))
  assert.deepEqual(types, ['main', 'thread'])
  await other.terminate()
  assert.equal((await here.read('s')).length, 2)
  await here.close()
}

async function worker() {
  const there = new nvent.FileStoreAdapter({ dataDir: workerData })
  await there.append('s', { type: 'thread' })
  parentPort.postMessage((await there.read('s')).map(event => event.type))
  await there.close()
}
