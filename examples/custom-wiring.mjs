/** A wiring of your own: starts and stops with the built-in ones, after and before them. Here it counts orders by day. */
import { createAdapters, createWiringRegistry, getEventBus, shutdown, useStoreAdapter } from 'nvent-native'

/** Keeps a counter for each day up to date. */
function dailyOrders() {
  let end = () => {}
  return {
    start() {
      end = getEventBus().onType('order.placed', async ({ id, ts }) => {
        // Ingress events, which flow wiring would persist, have no id.
        if (id) await useStoreAdapter().kv.increment(`orders:${new Date(ts).toISOString().slice(0, 10)}`)
      })
    },
    stop() {
      end()
    },
  }
}

const { store } = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
const wiring = createWiringRegistry({ wirings: [dailyOrders()] })
await wiring.start()

for (let n = 1; n <= 3; n++) await store.append(`order:${n}`, { type: 'order.placed' })
const today = new Date().toISOString().slice(0, 10)
console.log('orders today:', await store.kv.get(`orders:${today}`))

await wiring.stop()
await store.append('order:4', { type: 'order.placed' })
console.log('after the stop:', await store.kv.get(`orders:${today}`))

await shutdown()
