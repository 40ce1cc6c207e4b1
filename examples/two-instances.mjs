/** Two processes on one Redis: each sees what the other stores, and drops what it has cached. */
import { createAdapters, createWiringRegistry, shutdown } from 'nvent-native'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startRedis } from './redis-server.mjs'

const port = process.argv[2]
await (port ? second(Number(port)) : first())

/** An instance: a store and a stream on Redis, and a coordinator that says on the stream what the store has stored. */
async function open(port) {
  const adapters = await createAdapters({
    store: { adapter: 'redis' }, stream: { adapter: 'redis' }, queue: { adapter: 'memory' }, connections: { redis: { port } },
  })
  await createWiringRegistry({ flow: false }).start()
  return adapters
}

/** Writes, and waits until the other process has noticed. */
async function first() {
  const redis = await startRedis()
  const { store } = await open(redis.port)
  await store.kv.set('price', 10)
  const other = fork(fileURLToPath(import.meta.url), [redis.port])
  const exit = once(other, 'exit')
  await once(other, 'message')
  await store.kv.set('price', 12)
  await store.append('prices', { type: 'price.changed', data: { price: 12 } })
  await exit
  await shutdown()
  await redis.stop()
}

/** Caches a value, and reads it again when the other process says that it has changed. */
async function second(port) {
  // Deliveries do not keep the process alive; in a server the open sockets do, here a timer.
  const alive = setInterval(() => {}, 60_000)
  const { store, stream } = await open(port)
  let cached = await store.kv.get('price')
  console.log('the second process has cached', cached)
  const changed = new Promise((resolve) => {
    // Messages may have been missed where there is a gap: drop everything.
    void stream.subscribe('store-sync:append:prices', () => resolve()).then(() => process.send('ready'))
  })
  await changed
  cached = await store.kv.get('price')
  console.log('and has now', cached)
  await shutdown()
  clearInterval(alive)
  process.disconnect()
}
