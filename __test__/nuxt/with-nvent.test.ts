import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { App, eventually, type Built, type Server } from './app.js'

const SLOW = 240_000
const config = (modules: string[], rest = '') => `{
  modules: ${JSON.stringify(modules)},
  nvent: { wiring: { streamCoordinator: { enableClientMessages: true } } },
  ${rest}
}`

const RUNS = 40

describe.each([
  { layout: 'after nvent', modules: ['@nvent/adapter-store-redis', 'nvent', 'nvent-native'] },
  { layout: 'before nvent', modules: ['nvent-native', '@nvent/adapter-store-redis', 'nvent'] },
])('the module listed $layout', ({ modules }) => {
  let app: App, built: Built, server: Server

  beforeAll(async () => {
    app = await App.create('with-nvent', { config: config(modules), packages: { 'nvent': 'nvent', '@nvent/adapter-store-redis': 'redis-package' } })
    built = await app.build()
    server = await built.start()
  }, SLOW)
  afterAll(async () => {
    await server?.stop('SIGKILL')
    await built?.remove()
    await app?.remove()
  })

  test('a run that is started in the first milliseconds completes', async () => {
    await server.post('/api/start', { runId: 'first' })
    await completed('first')
  })

  test('takes the places of the built-in adapters, and of those of other packages', async () => {
    const { adapters, store, stream, queue, redis } = await server.get('/api/state')
    expect(redis).toBe('RedisStoreAdapter')
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
    server = await built.start()
    const { events } = await completed('two')
    expect(events.filter((event: any) => event.type === 'flow.completed')).toHaveLength(1)
  })

  test('a graceful stop in the middle of runs loses nothing: what the wiring writes after the drain is stored, and the next start goes on', async () => {
    const ids = Array.from({ length: RUNS }, (_, n) => `run-${n}`)
    await Promise.all(ids.map(runId => server.post('/api/start', { runId, pause: 30 })))
    await eventually(async () => (await server.get('/api/state?runId=run-0')).events.some((event: any) => event.type === 'step.completed'), 'the first end of a step')
    expect(await server.stop('SIGTERM')).toBe(0)
    expect(server.output).toContain('nvent: queue drained')
    expect(server.output).not.toMatch(/NVENT_CLOSED|is closed|flow wiring:/)
    server = await built.start()
    for (const runId of ids) {
      const { events } = await completed(runId)
      expect(events.filter((event: any) => event.type === 'flow.completed'), runId).toHaveLength(1)
    }
  })

  test('a request waits while the process that this one replaces still holds the directory', async () => {
    const next = await built.start()
    const answer = next.get('/api/state?runId=two')
    await server.stop()
    expect((await answer).run.metadata.status).toBe('completed')
    expect(next.output).toMatch(/cannot open the adapters yet: .*NVENT_LOCKED.*Trying again[^]*the adapters are open/)
    server = next
  })

  test('a worker that is registered while the server runs needs no startProcessingQueue', async () => {
    expect(await server.get('/api/late', { withinMs: 10_000 })).toEqual({ ran: 'ran' })
  })

  test('calls as nvent makes them are taken as its own adapters take them, with a warning for each kind', async () => {
    expect(await server.get('/api/loose')).toEqual({ jobs: 1, all: 1, events: 2, flows: 1, value: 1 })
    await server.get('/api/loose')
    expect(server.output.match(/getJobs: 'filter' is not an option/g)).toHaveLength(1)
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
    const server = await built.start()
    const { adapters, store } = await server.get('/api/state')
    expect(adapters.store.sort()).toEqual(['native-file', 'native-memory', 'native-redis'])
    expect(store).toBe('MemoryStoreAdapter')
    await server.stop()
    await built.remove()
    await app.remove()
  }, SLOW)
})
