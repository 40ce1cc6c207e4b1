/** The demo in one process, on files or in memory. See `demo.mjs`. */
import { randomBytes } from 'node:crypto'
import { createAdapters, createWiringRegistry, shutdown, startFlow } from 'nvent-native'
import { runOf, showChannels } from './channels.mjs'
import { orders, receipts, triggers } from './orders.mjs'
import { startReceiver } from './receiver.mjs'
import { dim, heading, percentile, row, say } from './terminal.mjs'

const RUNS = 3
const MEASURED = 1_000

// The package does not keep the process alive; in a server the open sockets do, here a timer.
const alive = setInterval(() => {}, 60_000)

const memory = process.argv.includes('--memory')
const adapter = memory ? 'memory' : 'file'
const { store, stream, queue } = await createAdapters({
  store: { adapter },
  stream: { adapter: 'memory' },
  queue: { adapter },
  connections: { file: { dataDir: '.data/demo' } },
})
const runs = Array.from({ length: RUNS }, (_, n) => `order-${Date.now().toString(36)}-${n + 1}`)

const secret = `whsec_${randomBytes(32).toString('base64')}`
const received = new Map()
let allReceived
const receiver = await startReceiver(secret, (id, event) => {
  // A start that was interrupted may have left some.
  if (!runs.includes(event.runId)) return
  received.set(event.runId, id)
  if (received.size === RUNS) allReceived()
})
const deliveries = new Promise(resolve => allReceived = resolve)

const wiring = createWiringRegistry({
  flow: { flows: [orders, receipts] },
  triggers,
  streamCoordinator: { enableClientMessages: true },
  // Its receiver is on this machine, which is refused unless it is allowed.
  webhooks: [{ name: 'accounting', types: 'flow.completed', flow: 'order', url: receiver.url, secret, allowPrivate: true }],
})
await wiring.start()

heading('Earlier runs, from the index')
const earlier = await store.index.read('nq:flows:order', { limit: 5 })
for (const { id, metadata } of earlier) row(id, `${metadata.status}, started ${new Date(metadata.startedAt).toISOString()}`)
if (earlier.length === 0) say(dim(`  none${memory ? '' : ': start the demo again, and these will be here'}`))

heading('What arrives on the three channels')
const [shown] = runs
const ended = new Set()
let allEnded
const end = new Promise(resolve => allEnded = resolve)

// One run is printed; the others run beside it.
await showChannels(stream, received => runOf(received) === shown)
await stream.subscribe('client:ui:flow:order', ({ data }) => {
  if (runs.includes(data.runId) && data.status !== 'running' && ended.add(data.runId).size === RUNS) allEnded()
})
const sent = new Map()
let allSent
const receiptsSent = new Promise(resolve => allSent = resolve)
await stream.subscribe('client:flow:*', ({ data: { event } }) => {
  if (event.flowName !== 'receipt' || event.type !== 'step.completed' || !runs.includes(event.data.result.sent)) return
  if (sent.set(event.data.result.sent, event.runId).size === RUNS) allSent()
})

for (const [n, runId] of runs.entries()) await startFlow(orders, { items: n + 1 }, { runId })
await end

heading('Signed webhooks, verified by their receiver')
await deliveries
for (const [runId, id] of received) row(runId, `flow.completed, ${id}`)

heading('Receipts: a second flow, which a completed order triggers')
await receiptsSent
for (const [order, runId] of sent) row(order, runId)

heading('The run in the index')
const { metadata } = await store.index.get('nq:flows:order', shown)
for (const [field, value] of Object.entries(metadata)) row(field, JSON.stringify(value))

heading(`From append to subscriber, ${MEASURED} events one by one`)
const durations = await measure()
row('p50', `${percentile(durations, 0.5).toFixed(3)} ms`)
row('p99', `${percentile(durations, 0.99).toFixed(3)} ms`)

heading('Stats')
const counts = await Promise.all(Object.keys(orders.handlers).map(step => queue.getJobCounts(`order.${step}`)))
row('jobs', summary(counts.reduce((sum, { completed, failed }) => ({ completed: sum.completed + completed, failed: sum.failed + failed }), { completed: 0, failed: 0 })))
const { streamCoordinator, flow, triggers: firings, webhooks } = wiring.stats()
for (const [name, stats] of Object.entries({ coordinator: streamCoordinator, flow, triggers: firings, webhooks, store: store.stats(), stream: stream.stats() })) {
  row(name, summary(stats))
}

await shutdown()
await receiver.stop()
clearInterval(alive)
say()

/** Returns how long each event takes from append to a subscriber of the store-sync channel, in milliseconds. */
async function measure() {
  const durations = []
  let arrived
  const { unsubscribe } = await stream.subscribe('store-sync:append:demo:measured', () => arrived())
  for (let n = 0; n < MEASURED; n++) {
    const received = new Promise(resolve => arrived = resolve)
    const began = performance.now()
    await store.append('demo:measured', { type: 'measured', data: { n } })
    await received
    durations.push(performance.now() - began)
  }
  await unsubscribe()
  await store.stream.delete('demo:measured')
  return durations
}

/** Returns the counters that are not 0, in one line. */
function summary(stats) {
  return Object.entries(stats)
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(', ')
}
