import { createEventBus, createTriggerWiring, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { until } from './support/until'

it('a debounce window ends early with 10,000 events, without a registry', async () => {
  await using store = new MemoryStoreAdapter({ bus: createEventBus() })
  await using queue = new MemoryQueueAdapter()
  const flows = [defineFlow('large', { only: { run: () => {} } })]
  const wiring = createTriggerWiring({
    store, queue, flows,
    triggers: [{ id: 'large', on: { event: 'k' }, start: 'large', debounce: { wait: 3_600_000 }, input: ({ events }) => events!.length }],
  })
  await wiring.start()
  const append = (count: number): Promise<unknown> => Promise.all(Array.from({ length: count }, (_, n) => store.append(`k:${n % 7}`, { type: 'k' })))
  await append(10_000)
  const [fired] = await until('it has fired', async () => {
    const history = await store.read('nq:trigger:large')
    return history.length > 0 ? history : undefined
  }, 40_000)
  await append(50)
  await until('the others wait', () => wiring.stats().waiting === 50, 40_000)
  expect(fired!.data).toMatchObject({ events: 10_000, fired: 1 })
  const [start] = await store.read(`nq:flow:${fired!.data.runIds[0]}`)
  expect(start!.data.input).toBe(10_000)
  await wiring.stop()
})
