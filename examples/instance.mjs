/** One of the two processes that share a Redis. Each runs an order of its own and shows what it hears of the other's. */
import { createAdapters, createWiringRegistry, shutdownAdapters } from 'nvent-native'
import { on } from 'node:events'
import { describe, showChannels } from './channels.mjs'
import { orders, registerSteps, startOrder } from './orders.mjs'
import { dim, message, row, say } from './terminal.mjs'

/** What a channel says last of a run. */
const isLastOf = {
  'store-sync': ({ data }) => data.event?.type === 'flow.completed',
  'flow': ({ data }) => data.cause === 'flow.completed',
  'client': ({ data }) => data.status === 'completed',
}

/** `peer` is the other process: something to `send` to, that emits `message`. */
export async function runInstance(name, peer, port) {
  const lost = () => {
    console.error(`${name}: the other process has gone`)
    process.exit(1)
  }
  peer.once('disconnect', lost)
  const meet = meetingsWith(peer)

  const { store, stream, queue } = await createAdapters({
    store: { adapter: 'redis' },
    stream: { adapter: 'redis' },
    queue: { adapter: 'memory' },
    connections: { redis: { port } },
  })
  const wiring = createWiringRegistry({
    flow: { flows: [orders] },
    streamCoordinator: { enableClientMessages: true, instanceId: name },
  })
  await wiring.start()
  registerSteps(queue)

  const run = `order-${name}`
  const lead = dim(name.padEnd(8))
  const heard = { 'store-sync': 0, 'flow': 0, 'client': 0, 'store': 0 }
  const unfinished = new Set(Object.keys(heard))
  let allEnded
  const end = new Promise(resolve => allEnded = resolve)
  const hear = (source, isLast) => {
    heard[source]++
    if (isLast && unfinished.delete(source) && unfinished.size === 0) allEnded()
  }

  await showChannels(stream, (received, channel) => {
    const isOthers = received.metadata?.instanceId !== name
    if (isOthers) hear(channel, isLastOf[channel](received))
    return isOthers
  }, lead)
  await store.stream.subscribe('nq:flow:*', (event) => {
    if (event.runId === run) return
    hear('store', event.type === 'flow.completed')
    message('store', `nq:flow:${event.runId}`, describe(event), lead)
  })

  await meet() // Both listen before either begins,
  await startOrder(queue, run, { items: 2 })
  await end
  await meet() // neither stops before both have heard everything,
  await wiring.stop()
  peer.off('disconnect', lost)
  await meet() // and what both have written is there to be read.

  const runs = await store.index.read('nq:flows:order')
  say()
  row(`${name} heard`, Object.entries(heard).map(([source, count]) => `${source} ${count}`).join(', '))
  row(`${name} finds`, runs.map(({ id, metadata }) => `${id} ${metadata.status}`).join(', '))

  await shutdownAdapters()
}

/** Each call resolves once the other process has made its own. */
function meetingsWith(peer) {
  const arrivals = on(peer, 'message', { close: ['disconnect'] })
  return async () => {
    peer.send('here')
    await arrivals.next()
  }
}
