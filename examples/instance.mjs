/**
 * One of the two processes that share a Redis. Each runs an order of its own and shows what it hears of the other's.
 * The server may be killed and started again meanwhile: nothing is lost, as the channels are retained. Where the other
 * process is killed, this one goes on alone.
 */
import { createAdapters, createWiringRegistry, shutdownAdapters } from 'nvent-native'
import { on } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
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
  // The package keeps no process alive, and the other process may go.
  const alive = setInterval(() => {}, 60_000)
  const meet = meetingsWith(peer)

  const { store, stream, queue } = await persistently(name, () => createAdapters({
    store: { adapter: 'redis' },
    stream: { adapter: 'redis', retain: { topics: ['store-sync:*', 'flow:*', 'client:*'] } },
    queue: { adapter: 'memory' },
    connections: { redis: { port } },
  }))
  const wiring = createWiringRegistry({
    flow: { flows: [orders] },
    streamCoordinator: { enableClientMessages: true, instanceId: name },
  })
  await wiring.start()
  registerSteps(queue)

  const run = `order-${name}`
  const lead = dim(name.padEnd(8))
  const heard = { 'store-sync': 0, 'flow': 0, 'client': 0, 'store': 0 }
  const unfinished = new Set([...Object.keys(heard), 'own'])
  const gaps = new Set()
  let allEnded
  const end = new Promise(resolve => allEnded = resolve)
  const ended = (...sources) => {
    sources.forEach(source => unfinished.delete(source))
    // After a gap the last message of a channel may be what is missing; the store has it all.
    if (!unfinished.has('store')) gaps.forEach(source => unfinished.delete(source))
    if (unfinished.size === 0) allEnded()
  }
  const hear = (source, isLast) => {
    heard[source]++
    if (isLast) ended(source)
  }
  const lost = () => {
    say(`${name}: the other process has gone; going on alone`)
    ended(...Object.keys(heard))
  }
  if (peer.connected) peer.once('disconnect', lost)
  else lost()

  await showChannels(stream, (received, channel) => {
    const isOthers = received.metadata?.instanceId !== name
    if (received.type === 'stream.gap') {
      gaps.add(channel)
      ended()
    }
    else if (isOthers) hear(channel, isLastOf[channel](received))
    return isOthers
  }, lead)
  await store.stream.subscribe('nq:flow:*', (event) => {
    if (event.runId === run) {
      if (event.type === 'flow.completed') ended('own')
      return
    }
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

  const runs = await persistently(name, () => store.index.read('nq:flows:order'))
  say()
  row(`${name} heard`, Object.entries(heard).map(([source, count]) => `${source} ${count}`).join(', '))
  row(`${name} finds`, runs.map(({ id, metadata }) => `${id} ${metadata.status}`).join(', '))

  const { reconnects } = stream.stats()
  if (reconnects > 0) row(`${name} reconnected`, `${reconnects} connections of the stream`)

  await shutdownAdapters()
  clearInterval(alive)
}

/** Calls again, and tells, while Redis is away. */
async function persistently(name, call) {
  for (;;) {
    try {
      return await call()
    }
    catch (error) {
      if (!error.retryable) throw error
      say(`${name}: ${error.message}; trying again`)
      await pause(200)
    }
  }
}

/** Each call resolves once the other process has made its own, or has gone. */
function meetingsWith(peer) {
  const arrivals = on(peer, 'message', { close: ['disconnect'] })
  return async () => {
    // What fails is told by `disconnect`.
    if (peer.connected) peer.send('here', () => {})
    await arrivals.next()
  }
}
