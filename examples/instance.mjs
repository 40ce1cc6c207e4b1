/**
 * One of two processes that share a Redis. Each runs its own order and shows what it receives about the other's.
 * The server may be killed and restarted meanwhile: nothing is lost, because the channels are retained. If the other
 * process is killed, this one continues alone.
 */
import { createAdapters, createWiringRegistry, shutdown, startFlow } from 'nvent-native'
import { on } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, showChannels } from './channels.mjs'
import { orders } from './orders.mjs'
import { dim, message, row, say } from './terminal.mjs'

/** Matches the last message of a run on each channel. */
const isLastOf = {
  'store-sync': ({ data }) => data.event?.type === 'flow.completed',
  'flow': ({ data }) => data.cause === 'flow.completed',
  'client': ({ data }) => data.status === 'completed',
}

/** Runs one instance. `peer` is the other process: an object with `send` that emits `message`. */
export async function runInstance(name, peer, port) {
  // The package does not keep the process alive, and the other process may exit.
  const alive = setInterval(() => {}, 60_000)
  const meet = barrierWith(peer)

  const { store, stream } = await withRetries(name, () => createAdapters({
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

  const run = `order-${name}`
  const lead = dim(name.padEnd(8))
  const received = { 'store-sync': 0, 'flow': 0, 'client': 0, 'store': 0 }
  const unfinished = new Set([...Object.keys(received), 'own'])
  const gaps = new Set()
  let allEnded
  const end = new Promise(resolve => allEnded = resolve)
  const ended = (...sources) => {
    sources.forEach(source => unfinished.delete(source))
    // After a gap the missing message may be the last one of the channel; the store has every event.
    if (!unfinished.has('store')) gaps.forEach(source => unfinished.delete(source))
    if (unfinished.size === 0) allEnded()
  }
  const receive = (source, isLast) => {
    received[source]++
    if (isLast) ended(source)
  }
  const onDisconnect = () => {
    say(`${name}: the other process has exited; continuing alone`)
    ended(...Object.keys(received))
  }
  if (peer.connected) peer.once('disconnect', onDisconnect)
  else onDisconnect()

  await showChannels(stream, (message, channel) => {
    const isOthers = message.metadata?.instanceId !== name
    if (message.type === 'stream.gap') {
      gaps.add(channel)
      ended()
    }
    else if (isOthers) receive(channel, isLastOf[channel](message))
    return isOthers
  }, lead)
  await store.stream.subscribe('nq:flow:*', (event) => {
    if (event.runId === run) {
      if (event.type === 'flow.completed') ended('own')
      return
    }
    receive('store', event.type === 'flow.completed')
    message('store', `nq:flow:${event.runId}`, describe(event), lead)
  })

  await meet() // Both subscribe before either starts,
  // Repeating a start under its id is safe.
  await withRetries(name, () => startFlow(orders, { items: 2 }, { runId: run }))
  await end
  await meet() // neither stops before both have received everything,
  await wiring.stop()
  peer.off('disconnect', onDisconnect)
  await meet() // and both have written everything before either reads.

  const runs = await withRetries(name, () => store.index.read('nq:flows:order'))
  say()
  row(`${name} received`, Object.entries(received).map(([source, count]) => `${source} ${count}`).join(', '))
  row(`${name} finds`, runs.map(({ id, metadata }) => `${id} ${metadata.status}`).join(', '))

  const { reconnects } = stream.stats()
  if (reconnects > 0) row(`${name} reconnected`, `${reconnects} connections of the stream`)

  await shutdown()
  clearInterval(alive)
}

/** Repeats a call while its error is retryable, and prints each failure. */
async function withRetries(name, call) {
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

/** Returns a barrier: each call resolves when the other process has made its own, or has exited. */
function barrierWith(peer) {
  const arrivals = on(peer, 'message', { close: ['disconnect'] })
  return async () => {
    // A failed send is followed by `disconnect`.
    if (peer.connected) peer.send('here', () => {})
    await arrivals.next()
  }
}
