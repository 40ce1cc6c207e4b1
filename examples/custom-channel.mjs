/** A channel of your own: a row in the coordinator's table that publishes what is stored under another topic. */
import { createAdapters, createWiringRegistry, shutdown } from 'nvent-native'

const { store, stream } = await createAdapters({ store: { adapter: 'memory' }, queue: { adapter: 'memory' } })
const wiring = createWiringRegistry({
  flow: false,
  streamCoordinator: {
    channels: [{ name: 'billing', types: ['order.paid', 'order.refunded'], topic: 'billing:{customer}', type: 'billing.changed' }],
  },
})
await wiring.start()

const alive = setInterval(() => {}, 60_000)
const messages = []
const both = new Promise((resolve) => {
  void stream.subscribe('billing:*', ({ type, data }, topic) => messages.push(`${topic}: ${type}, ${data.event.type}`) === 2 && resolve())
})
await store.append('order:1', { type: 'order.placed', customer: 'ada' })
await store.append('order:1', { type: 'order.paid', customer: 'ada' })
await store.append('order:1', { type: 'order.refunded', customer: 'ada' })
await both
console.log(messages.join('\n'))
console.log('routed:', wiring.stats().streamCoordinator.routed.billing)

await shutdown()
clearInterval(alive)
