import {
  createEventBus, createFlowWiring, createStreamCoordinator, createTriggerWiring, createWebhookWiring, createWiringRegistry, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter,
} from 'nvent-native'
import { expect, it } from 'vitest'
import { rejects } from './support/until'

it('adapters and subscriptions are closed at the end of their scope', async () => {
  const bus = createEventBus()
  const store = new MemoryStoreAdapter({ bus }), stream = new MemoryStreamAdapter(), queue = new MemoryQueueAdapter()
  {
    await using _store = store
    await using _stream = stream
    await using _queue = queue
    {
      await using _events = await store.subscribe('s', () => {})
      await using _messages = await stream.subscribe('t', () => {})
      expect(await stream.listTopics()).toEqual(['t'])
    }
    expect(await stream.listTopics()).toEqual([])
    expect(store.stats()['subscriptions'] ?? 0).toBe(0)
  }
  await rejects(store.kv.get('k'), 'NVENT_CLOSED')
  await rejects(stream.publish('t', { type: 'x', data: 1 }), 'NVENT_CLOSED')
  await rejects(queue.enqueue('q', { name: 'a', data: 1 }), 'NVENT_CLOSED')
})

it('wirings and the registry stop at the end of their scope, and can be started again', async () => {
  await using store = new MemoryStoreAdapter(), stream = new MemoryStreamAdapter(), queue = new MemoryQueueAdapter()
  const stopped: string[] = []
  const own = { start: () => {}, stop: () => void stopped.push('own') }
  {
    await using registry = createWiringRegistry({ store, stream, queue, wirings: [own] })
    await registry.start()
  }
  expect(stopped).toEqual(['own'])
  const wirings = [
    createStreamCoordinator({ stream, store }), createFlowWiring({ store, queue, flows: () => [] }),
    createTriggerWiring({ store, queue, flows: [], triggers: [] }), createWebhookWiring({ store, stream, queue, webhooks: [] }),
  ]
  for (const wiring of wirings) {
    for (let times = 0; times < 2; times++) {
      await using started = wiring
      await started.start()
    }
  }
})
