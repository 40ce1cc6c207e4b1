/** A store in files: events of a subject, an index of what there is, values with a lifetime. Run it twice. */
import { FileStoreAdapter } from 'nvent-native'

const store = new FileStoreAdapter({ dataDir: '.data/example-store' })

// Events. `expectedLastId` lets only one of several writers continue a subject.
const [last] = await store.stream.read('order:1', { order: 'desc', limit: 1 })
const placed = await store.stream.append('order:1', { type: 'order.placed', data: { items: 2 } }, { expectedLastId: last?.id ?? null })
await store.stream.append('order:1', { type: 'order.paid' }, { expectedLastId: last?.id ?? null })
  .catch(error => console.log('another writer came first:', error.code))
console.log('after', placed.id, (await store.stream.read('order:1', { after: placed.id })).length, 'events')

// An index: metadata is merged at every depth, counters are atomic.
await store.index.add('orders', '1', Date.now(), { status: 'placed', stats: { views: 0 } })
await store.index.update('orders', '1', { status: 'paid' })
await Promise.all(Array.from({ length: 10 }, () => store.index.increment('orders', '1', 'stats.views')))
console.log('paid orders:', (await store.index.read('orders', { filter: { status: 'paid' } })).map(({ id, metadata }) => `${id}, ${metadata.stats.views} views`))

// Values. This one is gone after a second.
await store.kv.set('session:1', { user: 'ada' }, 1)
console.log('session of', (await store.kv.get('session:1')).user)
console.log('starts:', await store.kv.increment('starts'))

await store.close()
