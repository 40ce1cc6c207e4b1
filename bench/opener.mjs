/** Opens a file store, uses it, tells how long that took, and waits for its end. */
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

// Runs of 20 events, as flows make them; and something in the log for the next start to find.
await inFlight(1_024, fill || 2_000, i => store.append(subject(Math.floor(i / 20)), event(i)))
process.send({ ms, rss })
process.once('message', async () => {
  await store.close()
  process.exit()
})
