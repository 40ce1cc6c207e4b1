/** When handlers run that are in the process of the append. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createEventBus, createStreamCoordinator, FileStoreAdapter, MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { until } from './support/until'

let store: MemoryStoreAdapter
let stream: MemoryStreamAdapter
let coordinator: ReturnType<typeof createStreamCoordinator>
beforeEach(async () => {
  const bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  stream = new MemoryStreamAdapter()
  coordinator = createStreamCoordinator({ bus, stream, enableFlowEvents: false })
  await coordinator.start()
})
afterEach(async () => {
  await coordinator.stop()
  await stream.shutdown()
  await store.close()
})

it('an event is delivered in the turn of its append, after the code that appended, and outside of its context', async () => {
  const context = new AsyncLocalStorage<string>()
  const order: unknown[] = []
  await stream.subscribe('store-sync:append:s', ({ data }) => order.push(data.event.data, context.getStore()))
  await new Promise<void>((resolve) => {
    setImmediate(() => {
      context.run('of the caller', () => {
        void store.append('s', { type: 'a', data: 1 })
        void store.append('s', { type: 'a', data: 2 })
        order.push('appended')
      })
      // The next turn of the event loop.
      setImmediate(resolve)
    })
  })
  expect(order).toEqual(['appended', 1, undefined, 2, undefined])
})

it('handlers that append without end leave turns to timers', async () => {
  let delivered = 0
  let ticks = 0
  let goesOn = true
  await stream.subscribe('store-sync:append:s', () => {
    delivered++
    if (goesOn) void store.append('s', { type: 'a' })
  })
  const timer = setInterval(() => ticks++, 1)
  await store.append('s', { type: 'a' })
  await until('timers fire while events are delivered', () => ticks > 3 && delivered > 100)
  goesOn = false
  clearInterval(timer)
})

it('events of a subject keep their order whether the stream takes them at once or a subscriber blocks', async () => {
  const seen: number[] = []
  await stream.subscribe('store-sync:append:s', async ({ data }) => {
    seen.push(data.event.data)
    await Promise.resolve()
  }, { buffer: 2, overflow: 'block' })
  for (let n = 0; n < 200; n++) await store.append('s', { type: 'a', data: n })
  await until('all are delivered', () => seen.length === 200)
  expect(seen).toEqual(Array.from({ length: 200 }, (_, n) => n))
})

it('what does not fit in a turn of the event loop does not wait for anything else', async () => {
  let arrive = (): void => {}
  await stream.subscribe('store-sync:append:s', () => arrive())
  // Keeps the process alive, and wakes the event loop long after the deadline of the test.
  const timer = setTimeout(() => {}, 60_000)
  for (let n = 0; n < 500; n++) {
    const arrived = new Promise<void>(resolve => arrive = resolve)
    await store.append('s', { type: 'a' })
    await arrived
  }
  clearTimeout(timer)
})

it('no handler runs inside an append, also where the coordinator follows the feed of a file store', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-turn-'))
  const bus = createEventBus()
  const [fileStore, ownStream] = [new FileStoreAdapter({ bus, dataDir }), new MemoryStreamAdapter()]
  const fed = createStreamCoordinator({ bus, store: fileStore, stream: ownStream, enableFlowEvents: false })
  await fed.start()
  const context = new AsyncLocalStorage<string>()
  let appending = false
  const seen: unknown[] = []
  await ownStream.subscribe('store-sync:append:s', ({ data }) => void seen.push([data.event.data, appending, context.getStore()]))
  for (let n = 0; n < 200; n++) {
    context.run('of the caller', () => {
      appending = true
      void fileStore.append('s', { type: 'a', data: n })
      appending = false
    })
    if (n % 2 === 0) await until('it is delivered', () => seen.length === n + 1)
  }
  await until('all are delivered', () => seen.length === 200)
  expect(seen).toEqual(Array.from({ length: 200 }, (_, n) => [n, false, undefined]))
  await fed.stop()
  await ownStream.shutdown()
  await fileStore.close()
  await rm(dataDir, { recursive: true })
})
