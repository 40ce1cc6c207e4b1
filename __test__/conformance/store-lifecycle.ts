import { expect, it } from 'vitest'
import type { StoreAdapter } from 'nvent-native'
import { Inbox, rejects } from '../support/until'
import type { StoreContext } from './store'

const everything: Array<[string, (store: StoreAdapter) => Promise<unknown>]> = [
  ['init', store => store.init()],
  ['append', store => store.append('s', { type: 'x' })],
  ['read', store => store.read('s')],
  ['subscribe', store => store.subscribe('s', () => {})],
  ['stream.delete', store => store.stream.delete('s')],
  ['kv.get', store => store.kv.get('k')],
  ['kv.set', store => store.kv.set('k', 1)],
  ['kv.delete', store => store.kv.delete('k')],
  ['kv.clear', store => store.kv.clear('*')],
  ['kv.increment', store => store.kv.increment('k')],
  ['index.add', store => store.index.add('k', 'id', 1)],
  ['index.get', store => store.index.get('k', 'id')],
  ['index.read', store => store.index.read('k')],
  ['index.update', store => store.index.update('k', 'id', { a: 1 })],
  ['index.updateWithRetry', store => store.index.updateWithRetry('k', 'id', { a: 1 })],
  ['index.increment', store => store.index.increment('k', 'id', 'n')],
  ['index.delete', store => store.index.delete('k', 'id')],
  ['save', store => store.save('c', 'id', {})],
  ['get', store => store.get('c', 'id')],
  ['list', store => store.list('c')],
  ['delete', store => store.delete('c', 'id')],
]

export function lifecycle(context: StoreContext): void {
  it('opens on first use, and init may be called before, after and twice', async () => {
    const { store } = context
    await store.kv.set('k', 1)
    await Promise.all([store.init(), store.init()])
    expect(await store.kv.get('k')).toBe(1)
  })

  it('reports its health and counts what it does', async () => {
    const { store } = context
    await store.init()
    expect(await store.health()).toMatchObject({ ok: true, backend: context.capabilities.backend })
    await store.append('s', { type: 'x' })
    await store.read('s')
    await store.kv.set('k', 1)
    expect(store.stats()).toMatchObject({ appends: 1, reads: 1, writes: 1, errors: 0 })
  })

  it('closes twice, at once and one after the other', async () => {
    const { store } = context
    await store.kv.set('k', 1)
    await Promise.all([store.close(), store.close()])
    await store.close()
  })

  it('closes without ever having been used', async () => {
    await context.another().close()
  })

  it.each(everything)('%s rejects after close', async (_name, call) => {
    await context.store.close()
    await rejects(call(context.store), 'NVENT_CLOSED')
  })

  it('says after close that it is not well, and still has its counters', async () => {
    const { store } = context
    await store.append('s', { type: 'x' })
    await store.close()
    expect(await store.health()).toMatchObject({ ok: false, backend: context.capabilities.backend })
    expect(store.stats()).toMatchObject({ appends: 1 })
  })

  it('finishes on close what was called before', async () => {
    const { store } = context
    await store.init()
    const writes = Promise.all(Array.from({ length: 20 }, (_, n) => store.append('s', { type: 'x', n })))
    const close = store.close()
    expect(await writes).toHaveLength(20)
    await close
  })

  it('calls no subscriber after close, and its unsubscribe still resolves', async () => {
    const { store } = context
    const inbox = new Inbox()
    const subscription = await store.subscribe('s', inbox.take)
    await store.append('s', { type: 'x' })
    await inbox.atLeast(1)
    await store.close()
    await subscription.unsubscribe()
    expect(inbox.items).toHaveLength(1)
  })

  it('keeps for a later adapter what it says it keeps', async () => {
    const { store, capabilities } = context
    const record = await store.append('s', { type: 'x' })
    await store.kv.set('k', { a: [0, '', null] })
    await store.index.add('i', 'id', 2, { a: 1 })
    await store.save('c', 'id', { b: 2 })
    await store.close()
    const later = context.another()
    const found = [await later.read('s'), await later.kv.get('k'), await later.index.get('i', 'id'), await later.get('c', 'id')]
    expect(found).toEqual(capabilities.durable
      ? [[record], { a: [0, '', null] }, { id: 'id', score: 2, metadata: { a: 1, version: 0 } }, { b: 2 }]
      : [[], null, null, null])
  })
}
