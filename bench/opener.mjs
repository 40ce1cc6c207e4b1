/** Opens a file store, uses it, reports the time taken, and waits until it is asked to close or is killed. */
import { FileStoreAdapter } from '../dist/index.mjs'
import { inFlight } from './harness.mjs'
import { event } from './samples.mjs'

const { folder, fill = 0 } = JSON.parse(process.argv[2])
const subject = run => `nq:flow:run-${run}`

const before = process.memoryUsage.rss()
const began = performance.now()
const store = new FileStoreAdapter({ dataDir: folder, bus: null })
await store.init()
await store.read(subject(7))
await store.append(subject(7), event(1))
const ms = performance.now() - began
const rss = (process.memoryUsage.rss() - before) / 2 ** 20

// Runs of 20 events, as flows write them, so that the next start finds entries in the log.
await inFlight(1_024, fill || 2_000, i => store.append(subject(Math.floor(i / 20)), event(i)))
process.send({ ms, rss })
process.once('message', async () => {
  await store.close()
  process.exit()
})
