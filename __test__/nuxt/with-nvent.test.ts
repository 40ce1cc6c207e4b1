import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { App, eventually, type Built, type Server } from './app.js'

const SLOW = 240_000
const config = (modules: string[], rest = '') => `{
  modules: ${JSON.stringify(modules)},
  nvent: { wiring: { streamCoordinator: { enableClientMessages: true } } },
  ${rest}
}`

/** As in nvent, requests that come before the adapters are there fail. */
async function ready(built: Built): Promise<Server> {
  const server = await built.start()
  await eventually(() => server.get('/api/state').catch(() => undefined), 'the adapters')
  return server
}

describe.each([
  { layout: 'after nvent', modules: ['nvent', 'nvent-native'] },
  { layout: 'before nvent', modules: ['nvent-native', 'nvent'] },
])('the module listed $layout', ({ modules }) => {
  let app: App, built: Built, server: Server

  beforeAll(async () => {
    app = await App.create('with-nvent', { config: config(modules), packages: { nvent: 'nvent' } })
    built = await app.build()
    server = await ready(built)
  }, SLOW)
  afterAll(async () => {
    await server?.stop('SIGKILL')
    await built?.remove()
    await app?.remove()
  })

  test('takes the places of the built-in adapters', async () => {
    const { adapters, store, stream, queue } = await server.get('/api/state')
    expect(adapters.store.sort()).toEqual(['file', 'memory', 'native-file', 'native-memory', 'native-redis', 'redis'])
    expect(adapters.stream.sort()).toEqual(['memory', 'native-memory', 'native-redis', 'redis'])
    expect(adapters.queue.sort()).toEqual(['file', 'memory', 'native-file', 'native-memory'])
    expect({ store, stream, queue }).toEqual({ store: 'FileStoreAdapter', stream: 'MemoryStreamAdapter', queue: 'FileQueueAdapter' })
  })

  test('carries a flow with a fan-out, a join and a retry', async () => {
    await server.post('/api/start', { runId: 'one' })
    const { run, flow, events, left } = await completed('one')
    expect(run.metadata).toMatchObject({ completedSteps: 4 })
    expect(run.metadata).not.toHaveProperty('awaitingSteps')
    expect(flow.metadata.stats).toMatchObject({ running: 0, success: 0 })
    expect(left).toBeNull()
    const types = events.map((event: any) => event.type)
    expect(types.filter((type: string) => type === 'step.completed')).toHaveLength(4)
    expect(types.filter((type: string) => type === 'step.retry')).toHaveLength(1)
  })

  test('routes what is persisted to the three channels, once and in order', async () => {
    const { events, seen } = await eventually(async () => {
      const state = await server.get('/api/state?runId=one')
      return state.seen.some((one: any) => one.topic.startsWith('client:flow:') && one.id === state.events.at(-1).id) && state
    }, 'the last event on the client channel')
    const on = (prefix: string) => seen.filter((one: any) => one.topic.startsWith(prefix)).map((one: any) => one.id)
    const ids = events.map((event: any) => event.id)
    expect(on('store-sync:append:nvent:flow:run:one')).toEqual(ids)
    expect(on('client:flow:one')).toEqual(ids)
    expect(on('flow:event:one').length).toBeGreaterThan(0)
  })

  test('finishes after a kill what was under way', async () => {
    await server.post('/api/start', { runId: 'two', pause: 300 })
    await eventually(async () => (await server.get('/api/state?runId=two')).events.some((event: any) => event.type === 'step.started'), 'the first step')
    await server.stop('SIGKILL')
    server = await ready(built)
    const { events } = await completed('two')
    expect(events.filter((event: any) => event.type === 'flow.completed')).toHaveLength(1)
  })

  test('closes after nvent has drained its queue', async () => {
    expect(await server.stop('SIGTERM')).toBe(0)
    expect(server.output).toContain('nvent: queue drained')
    expect(server.output).not.toContain('NVENT_CLOSED')
    server = await ready(built)
    expect((await server.get('/api/state?runId=two')).run.metadata.status).toBe('completed')
  })

  const completed = (runId: string) => eventually(async () => {
    const state = await server.get(`/api/state?runId=${runId}`)
    // The index and the events are read one after the other.
    return state.run?.metadata.status === 'completed' && state.events.some((event: any) => event.type === 'flow.completed') && state
  }, `the end of ${runId}`)
})

describe('with replace: false', () => {
  test('only the native names are registered', async () => {
    const app = await App.create('with-nvent', {
      config: `{
        modules: ['nvent', 'nvent-native'],
        nvent: { store: { adapter: 'native-memory' }, stream: { adapter: 'native-memory' }, queue: { adapter: 'native-memory' } },
        nventNative: { replace: false },
      }`,
      packages: { nvent: 'nvent' },
    })
    const built = await app.build()
    const server = await ready(built)
    const { adapters, store } = await server.get('/api/state')
    expect(adapters.store.sort()).toEqual(['native-file', 'native-memory', 'native-redis'])
    expect(store).toBe('MemoryStoreAdapter')
    await server.stop()
    await built.remove()
    await app.remove()
  }, SLOW)
})
