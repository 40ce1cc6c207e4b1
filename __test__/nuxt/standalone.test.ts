import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { App, eventually, type Built, type Server } from './app.js'

const SLOW = 240_000

describe('an app without nvent, configured as the architecture document prints it', () => {
  let app: App, built: Built, server: Server

  beforeAll(async () => {
    app = await App.create('standalone')
    built = await app.build()
    server = await built.start()
  }, SLOW)
  afterAll(async () => {
    await server?.stop('SIGKILL')
    await built?.remove()
    await app?.remove()
  })

  test('runs a flow from the bus over the queue to its end', async () => {
    await server.post('/api/start', { runId: 'one' })
    const { run, events } = await completed('one')
    expect(run.metadata).toMatchObject({ status: 'completed' })
    expect(events.filter((event: any) => event.type === 'flow.completed')).toHaveLength(1)
  })

  test('routes what is stored to the channels that the configuration enables', async () => {
    await server.post('/api/append', { subject: 'nq:flow:two', type: 'flow.completed', runId: 'two', flowName: 'other' })
    const topics = await eventually(async () => {
      const { seen } = await server.get('/api/state?runId=two')
      const topics = seen.map((one: any) => one.topic).filter((topic: string) => topic.includes('two'))
      return topics.length >= 2 && topics
    }, 'both channels')
    expect(topics.sort()).toEqual(['flow:event:two', 'store-sync:append:nq:flow:two'])
  })

  test('keeps everything when the process is killed', async () => {
    await server.stop('SIGKILL')
    server = await built.start()
    const { run, events, store } = await server.get('/api/state?runId=one')
    expect(run.metadata.status).toBe('completed')
    expect(events[0].type).toBe('flow.start')
    expect(store).toMatchObject({ ok: true, backend: 'file' })
  })

  test('closes cleanly on SIGTERM, and its data directory is free for the next', async () => {
    expect(await server.stop('SIGTERM')).toBe(0)
    server = await built.start()
    expect((await server.get('/api/state?runId=one')).run.metadata.status).toBe('completed')
    expect(server.output).not.toContain('NVENT_')
  })

  test('takes its adapters from the environment without a rebuild', async () => {
    const other = await built.start({ NUXT_NVENT_STORE_ADAPTER: 'memory', NUXT_NVENT_QUEUE_ADAPTER: 'memory' })
    const { store, run } = await other.get('/api/state?runId=one')
    expect(store.backend).toBe('memory')
    expect(run).toBeNull()
    await other.stop()
  })

  test('names the cause while another process holds the directory, and opens by itself once that has ended', async () => {
    const second = await built.start({ NUXT_NVENT_NATIVE_OPEN_TIMEOUT: '100' })
    await eventually(async () => second.output.includes('cannot open the adapters yet'), 'the failure')
    await expect(second.get('/api/state?runId=one')).rejects.toThrow(/503 .*the adapters are not open yet: .*uses this data directory/s)
    expect(second.output.match(/cannot open the adapters yet: .*NVENT_LOCKED.*Trying again/g)).toHaveLength(1)
    await server.stop()
    await eventually(async () => second.output.includes('the adapters are open'), 'the opening')
    expect((await second.get('/api/state?runId=one')).run.metadata.status).toBe('completed')
    server = second
  })

  test('a request that comes while another process still holds the directory waits for it', async () => {
    const second = await built.start()
    const answer = second.get('/api/state?runId=one')
    await server.stop()
    expect((await answer).run.metadata.status).toBe('completed')
    server = second
  })

  const completed = (runId: string) => eventually(async () => {
    const state = await server.get(`/api/state?runId=${runId}`)
    return state.run?.metadata.status === 'completed' && state
  }, `the end of ${runId}`)
})

describe('a wrong option', () => {
  const build = async (config: string) => {
    const app = await App.create('standalone', { config })
    const failure = await app.nuxi('prepare').then(() => 'it built', error => `${error.stdout}${error.stderr}`)
    await app.remove()
    return failure
  }

  test('fails the build, with the nearest right one, and every one at once', async () => {
    const output = await build(`{
      modules: ['nvent-native'],
      nvent: { store: { adapter: 'fille', file: { datadir: 'x' } }, stram: {}, wiring: { streamCoordinator: { enableStoreSync: 'yes' } } },
      nventNative: { durability: 'disc' },
    }`)
    expect(output).toContain('nvent.store.adapter: "fille" is not known; did you mean "file"?')
    expect(output).toContain('nvent.store.file.datadir: unknown option; did you mean "dataDir"?')
    expect(output).toContain('nvent.stram: unknown option; did you mean "stream"?')
    expect(output).toContain('nvent.wiring.streamCoordinator.enableStoreSync: expected true or false, got "yes"')
    expect(output).toContain('nventNative.durability: "disc" is not known; did you mean "disk"?')
  }, SLOW)

  test('fails the build where the steps of a flow are in nuxt.config, which would be missing in the server', async () => {
    expect(await build(`{ modules: ['nvent-native'], nvent: { wiring: { flow: { flows: [{ id: 'f', steps: { a: {} }, handlers: { a: { run: () => 1 } } }] } } } }`))
      .toContain('nvent.wiring.flow.flows.0.handlers.a.run is a function')
  }, SLOW)

  test('says of a queue on Redis which ones there are', async () => {
    expect(await build(`{ modules: ['nvent-native'], nvent: { queue: { adapter: 'redis' } } }`))
      .toContain('nvent.queue.adapter: there is no native queue on Redis, BullMQ is one: in Nuxt add')
  }, SLOW)
})
