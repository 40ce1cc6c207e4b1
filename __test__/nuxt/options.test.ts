import { describe, expect, test } from 'vitest'
import { memoryAdapters, nativeAdapters } from '../../dist/nuxt/runtime/adapters.js'
import { adapterOptions, mergeConnections } from '../../dist/lib/options/adapters.js'
import { serverConfig, unknownVariableWarnings, type BuiltConfig } from '../../dist/nuxt/runtime/config.js'
import { withDefaults } from '../../dist/nuxt/options.js'
import { moduleSchema, nventSchema, packagesSchema } from '../../dist/nuxt/schema.js'
import { settings } from './settings.js'

const built = (config: Partial<BuiltConfig> = {}): BuiltConfig => ({ options: {}, section: {}, packages: {}, withNvent: false, ...config })
const sections = [
  ...settings('nvent', nventSchema), ...settings('nventNative', moduleSchema),
  ...Object.entries(packagesSchema).flatMap(([name, schema]) => settings(name, schema)),
]
const atRunTime = sections.filter(({ isBuilt }) => !isBuilt)

const inNuxtConfig = (section: string, value: object) =>
  built(section === 'nvent' ? { section: value } : section === 'nventNative' ? { options: value } : { packages: { [section]: value } })
const configured = (section: string, value: object) => serverConfig(inNuxtConfig(section, value))

describe('every option', () => {
  test.each(atRunTime)('$variable does what $section.$path does in nuxt.config, also where that has another value', ({ section, variable, env, value, other }) => {
    const config = configured(section, value)
    expect(config).not.toEqual(serverConfig(built()))
    expect(serverConfig(built(), env)).toEqual(config)
    if (other !== undefined) expect(serverConfig(inNuxtConfig(section, other), env)).toEqual(config)
    expect(unknownVariableWarnings({}, { [variable]: 'x' })).toEqual([])
  })

  test.each(atRunTime.filter(({ section, path }) => section === 'nvent' && !path.startsWith('wiring.')))('$path is the same in createAdapters', ({ value }) => {
    const { store, stream, queue } = configured('nvent', value)
    expect(adapterOptions(value)).toEqual({ store, stream, queue })
  })

  test.each(sections.filter(({ section }) => section.startsWith('nvent') && !section.endsWith('Redis')))('$section.$path is refused where it is misspelt, with the nearest', ({ section, path, variable, isBuilt, misspelt, name }) => {
    expect(() => configured(section, misspelt)).toThrow(`${section}.${path}x: unknown option; did you mean "${name}"?`)
    const warning = `the variable ${variable}X is not an option${isBuilt ? '' : `: did you mean ${variable}?`}`
    expect(unknownVariableWarnings({}, { [`${variable}X`]: '1' })[0]).toContain(warning)
  })

  test('that the build reads has no variable, and a warning says so', () => {
    const ofTheBuild = sections.filter(({ isBuilt }) => isBuilt)
    expect(ofTheBuild.map(({ path }) => path)).toEqual(['realtime.path', 'realtime.authorize', 'metrics', 'metrics.authorize', 'triggers', 'webhooks', 'inspector', 'inspector.authorize'])
    for (const { variable } of ofTheBuild) {
      expect(unknownVariableWarnings({}, { [variable]: 'x' })).toEqual([`the variable ${variable} has no effect: the option is read when the app is built, from nuxt.config`])
      expect(serverConfig(built(), { [variable]: 'x' })).toEqual(serverConfig(built()))
    }
  })
})

describe('the options of a server', () => {
  test('derive folders from the environment of the run', () => {
    const { store, queue } = serverConfig(built(), { NUXT_NVENT_CONNECTIONS_FILE_DATA_DIR: '/data' })
    expect([store.file.dataDir, queue.file.dataDir]).toEqual(['/data/store', '/data/queue'])
    const own = serverConfig(built({ section: { store: { file: { dataDir: 'own' } } } }), { NUXT_NVENT_CONNECTIONS_FILE_DATA_DIR: '/data' })
    expect([own.store.file.dataDir, own.queue.file.dataDir]).toEqual(['own', '/data/queue'])
  })

  test('leave a password of digits text', () => {
    const { store, stream } = serverConfig(built(), { NUXT_NVENT_CONNECTIONS_REDIS_PASSWORD: '123456', NUXT_NVENT_CONNECTIONS_REDIS_PORT: '7000' })
    expect(store.redis.connection).toEqual({ password: '123456', port: 7000 })
    expect(stream.redis.connection).toEqual({ password: '123456', port: 7000 })
  })

  test('triggers are refused where nvent is', () => {
    const options = { triggers: './server/triggers.ts' }
    expect(() => serverConfig(built({ options }))).not.toThrow()
    expect(() => serverConfig(built({ options, withNvent: true }))).toThrow(/nventNative\.triggers: does not go with nvent: its own triggers are in charge there/)
    expect(() => serverConfig(built({ options: { webhooks: './server/webhooks.ts' }, withNvent: true }))).toThrow(/nventNative\.webhooks: does not go with nvent: start createWebhookWiring/)
  })

  test('an empty variable is none', () => {
    expect(serverConfig(built(), { NUXT_NVENT_CONNECTIONS_REDIS_USERNAME: '' }).store.redis.connection).toEqual({})
  })

  test('are read from text: numbers, booleans, lists and JSON, with either prefix', () => {
    const read = (env: NodeJS.ProcessEnv) => serverConfig(built(), env)
    for (const [text, replace] of [['true', true], ['TRUE', true], ['1', true], ['false', false], ['0', false]] as const) {
      expect(read({ NITRO_NVENT_NATIVE_REPLACE: text }).replace).toBe(replace)
    }
    expect(() => read({ NUXT_NVENT_NATIVE_REPLACE: 'yes' })).toThrow('- NUXT_NVENT_NATIVE_REPLACE: expected true or false, got "yes"')
    for (const topics of ['a:*, b', '["a:*","b"]']) {
      expect(read({ NUXT_NVENT_NATIVE_RETAIN_TOPICS: topics }).stream.redis).toMatchObject({ retain: { topics: ['a:*', 'b'] } })
    }
    expect(read({ NUXT_NVENT_NATIVE_RETAIN: '{"topics":["a"],"maxLen":5}' }).stream).toMatchObject({ redis: { retain: { topics: ['a'], maxLen: 5 } }, memory: { retain: { maxEvents: 5 } } })
    expect(read({ NUXT_NVENT: '{"store":{"adapter":"redis"},"connections":{"redis":{"host":"h"}}}' }).store).toMatchObject({ adapter: 'redis', redis: { connection: { host: 'h' } } })
    expect(read({ NUXT_NVENT_NATIVE_OPEN_TIMEOUT: '250' }).openTimeout).toBe(250)
    expect(read({ NUXT_NVENT_WIRING_FLOW: 'FALSE' }).flow).toBe(false)
    expect(read({ NUXT_NVENT_CONNECTIONS_REDIS_HOST: 'first', NITRO_NVENT_CONNECTIONS_REDIS_HOST: 'second' }).store.redis.connection).toEqual({ host: 'first' })
    expect(unknownVariableWarnings({}, { NITRO_NVENT_STORE_ADAPTR: 'x' })).toEqual(['the variable NITRO_NVENT_STORE_ADAPTR is not an option: did you mean NUXT_NVENT_STORE_ADAPTER?'])
  })

  test('name the variable that has a wrong value, and every problem at once', () => {
    const env = { NUXT_NVENT_STORE_ADAPTER: 'fille', NUXT_NVENT_CONNECTIONS_REDIS_PORT: 'x', NUXT_NVENT_NATIVE_DURABILITY: 'disc' }
    expect(() => serverConfig(built(), env)).toThrow(expect.objectContaining({
      code: 'NVENT_INVALID',
      message: [
        'wrong options:',
        'NUXT_NVENT_NATIVE_DURABILITY: "disc" is not known; did you mean "disk"? (known: os, disk)',
        'NUXT_NVENT_STORE_ADAPTER: "fille" is not known; did you mean "file"? (known: memory, file, redis)',
        'NUXT_NVENT_CONNECTIONS_REDIS_PORT: expected a whole number from 1 to 65535, got "x"',
      ].join('\n  - '),
    }))
  })

  test.each([
    [{ queue: { defaultJobOptions: { attempts: -1 } } }, 'nvent.queue.defaultJobOptions.attempts: expected a whole number from 1 to 4294967295, got -1'],
    [{ connections: { redis: { port: 99_999 } } }, 'nvent.connections.redis.port: expected a whole number from 1 to 65535, got 99999'],
    [{ store: { file: { dataDir: null } } }, 'nvent.store.file.dataDir: expected a non-empty string, got null'],
    [{ stream: { file: { dataDir: 'x' } } }, 'nvent.stream.file: unknown option'],
    [{ connections: { redis: { password: 5 } } }, 'nvent.connections.redis.password: expected a string, got a number'],
    [{ queue: { adapter: 'redis' } }, 'nvent.queue.adapter: there is no native queue on Redis, BullMQ is one'],
  ])('%j is refused', (section: any, message) => {
    expect(() => serverConfig(built({ section }))).toThrow(message)
  })

  test('a misspelt variable is named with the nearest, and those of nvent itself are known', () => {
    const env = { NUXT_NVENT_STORE_ADAPTR: 'file', NUXT_NVENT_FLOW_STEP_TIMEOUT: '1', NUXT_NVENT_STORE_ADAPTER: 'file', NUXT_NVENT_ZZZZZZZZZZ: '1', NUXT_OTHER: '1' }
    expect(unknownVariableWarnings({ flow: { stepTimeout: 1 } }, env)).toEqual([
      'the variable NUXT_NVENT_STORE_ADAPTR is not an option: did you mean NUXT_NVENT_STORE_ADAPTER?',
      'the variable NUXT_NVENT_ZZZZZZZZZZ is not an option',
    ])
    const ofNvent = { own: { none: null, list: ['x'], text: 'xy' } }
    const variables = ['NUXT_NVENT_OWN', 'NUXT_NVENT_OWN_NONE', 'NUXT_NVENT_OWN_LIST', 'NUXT_NVENT_OWN_TEXT', 'NUXT_NVENT_OWN_TEXT_0', 'NUXT_NVENT_OWN_LIST_0']
    const unknown = unknownVariableWarnings(ofNvent, Object.fromEntries(variables.map(name => [name, '1'])))
    expect(unknown.map(line => /variable (\S+)/.exec(line)![1])).toEqual(['NUXT_NVENT_OWN_TEXT_0', 'NUXT_NVENT_OWN_LIST_0'])
  })

  test('reach every adapter: prefixes, retained topics, trimming, retention, durability', () => {
    const config = serverConfig(built({
      options: { durability: 'disk', retain: { topics: ['job:*'], maxLen: 7 }, retention: { maxAgeMs: 5 } },
      section: { store: { prefix: 'a', streams: { trim: { maxLen: 3 } } }, stream: { prefix: 'b' } },
    }))
    expect(config.store).toMatchObject({ redis: { prefix: 'a', streams: { trim: { maxLen: 3 } } }, file: { durability: 'disk', retention: { maxAgeMs: 5 } } })
    expect(config.stream).toMatchObject({ redis: { prefix: 'b', retain: { topics: ['job:*'], maxLen: 7 } }, memory: { retain: { maxEvents: 7 } } })
    expect(config.queue.file).toEqual({ durability: 'disk', dataDir: '.data/queue' })
    // Every adapter accepts them.
    for (const makers of Object.values(nativeAdapters(config))) for (const make of Object.values(makers)) (make as () => unknown)()
  })

  test('reach the wiring: the coordinator, with what nventNative says first, and flows', () => {
    const flow = { flows: [{ id: 'f', steps: {} }], subjects: { run: 'r:{runId}' } }
    const config = serverConfig(built({
      options: { coordinator: { instanceId: 'mine', enableFlowEvents: false } },
      section: { wiring: { flow, streamCoordinator: { instanceId: 'other', consumer: 'c', channels: [{ name: 'n', types: ['t'], topic: 'n:{runId}' }] } } },
    }), { NUXT_NVENT_NATIVE_COORDINATOR_ENABLE_CLIENT_MESSAGES: 'true' })
    expect(config.coordinator).toEqual({
      instanceId: 'mine', enableFlowEvents: false, enableClientMessages: true, consumer: 'c', channels: [{ name: 'n', types: ['t'], topic: 'n:{runId}' }],
    })
    expect(config.flow).toEqual(flow)
  })

  test('what a section leaves open is filled in at every depth, and what it says wins, also null and lists', () => {
    expect(withDefaults({ a: { b: 1, c: undefined }, list: [1], none: null, text: 'x', empty: {} }, {
      a: { b: 2, c: 3, d: { e: 4 } }, list: [2, 3], none: { f: 5 }, text: { g: 6 }, empty: { h: 7 }, more: { i: 8 },
    })).toEqual({ a: { b: 1, c: 3, d: { e: 4 } }, list: [1], none: null, text: 'x', empty: { h: 7 }, more: { i: 8 } })
    expect(withDefaults({ a: { b: 1 } }, { a: 'text' })).toEqual({ a: { b: 1 } })
  })

  test('a wrong option names its adapter, and has what the adapter says as its cause', () => {
    const config = serverConfig(built())
    config.store.file.durability = 'wrong' as 'disk'
    expect(() => nativeAdapters(config).stores.file!()).toThrow(expect.objectContaining({ code: 'NVENT_INVALID', retryable: false, cause: expect.objectContaining({ code: 'NVENT_INVALID', message: expect.stringMatching(/durability/) }) }))
  })

  test('routes that are rendered during the build have adapters that keep nothing', async () => {
    const { store, stream, queue } = memoryAdapters()
    expect([store, stream, queue].map(adapter => adapter.constructor.name)).toEqual(['MemoryStoreAdapter', 'MemoryStreamAdapter', 'MemoryQueueAdapter'])
    await Promise.all([store.close(), stream.shutdown(), queue.close()])
  })

  test('have defaults', () => {
    expect(serverConfig(built())).toEqual({
      store: { adapter: 'file', memory: {}, file: { dataDir: '.data/store' }, redis: { connection: {} } },
      stream: { adapter: 'memory', memory: {}, redis: { connection: {} } },
      queue: { adapter: 'file', memory: {}, file: { dataDir: '.data/queue' } }, coordinator: {}, replace: true, openTimeout: 10_000,
    })
    expect(serverConfig(built({ options: { replace: false, openTimeout: 0 } }))).toMatchObject({ replace: false, openTimeout: 0 })
  })

  test.each([
    ['stores', 'file', /^nvent.store.file.durability: "wrong" is not known/],
    ['queues', 'file', /^nvent.queue.durability: "wrong" is not known/],
  ] as const)('durability is passed to the %s of files', (kind, backend, message) => {
    const config = serverConfig(built({ options: { durability: 'disk' } }))
    config.store.file.durability = config.queue.file.durability = 'wrong' as 'disk'
    expect(() => nativeAdapters(config)[kind][backend]!()).toThrow(message)
  })

  test.each([
    [{ store: { redis: { url: 'redis://h:1/2', db: 3 } } }, 'stores', 'nvent.store.redis.db: contradicts nvent.store.redis.url, which has another value'],
    [{ stream: { retain: { maxLen: 5 } } }, 'streams', 'nvent.stream.retain.topics: required'],
  ] as const)('%j is named by its path where the adapter finds it', (section, kind, message) => {
    expect(() => nativeAdapters(serverConfig(built({ section })))[kind].redis!()).toThrow(message)
  })

  test.each([null, 'redis', 5, ['redis'], true])('beside nvent a section that is %j says nothing', (section) => {
    const config = { section: { store: section, stream: section, queue: section, connections: section } as any, packages: { nventStoreRedis: section, nventStreamRedis: { connection: section } } as any }
    expect(serverConfig(built({ withNvent: true, ...config }))).toEqual(serverConfig(built({ withNvent: true })))
  })

  test('beside nvent its Redis packages are read, and text with a number in it is one', () => {
    const { store, stream } = serverConfig(built({
      withNvent: true,
      section: { connections: { redis: { host: 'shared', port: '6380' } }, stream: { connection: { host: 'third' } }, flow: {}, store: { adapter: 'postgres', schema: 'x' } } as any,
      packages: { nventStoreRedis: { connection: { host: 'other', password: 's' }, prefix: 'shop', streams: { trim: { maxLen: 50, approx: true } } }, nventStreamRedis: { prefix: 'live' } },
    }))
    expect(store).toMatchObject({ adapter: 'postgres', redis: { prefix: 'shop', connection: { host: 'other', port: 6380, password: 's' }, streams: { trim: { maxLen: 50, approx: true } } } })
    expect(stream).toMatchObject({ redis: { prefix: 'live', connection: { host: 'third', port: 6380 } } })
  })
})

test.each([
  [{ url: 'redis://user:pass@host:7000/1' }, { db: 3 }, { host: 'host', port: 7000, username: 'user', password: 'pass', db: 3 }],
  [{ url: 'rediss://host' }, { password: 'p' }, { host: 'host', password: 'p', tls: true }],
  [{ host: 'a', password: 'p', db: 2 }, { url: 'redis://b:7000/4' }, { url: 'redis://b:7000/4', password: 'p' }],
  [{ host: 'a', port: 7000 }, { url: 'redis://b' }, { url: 'redis://b' }],
  [{ url: 'redis://a' }, {}, { url: 'redis://a' }],
  [{}, { host: 'b' }, { host: 'b' }],
])('the connection %j with an adapter\'s own %j', (shared, own, merged) => {
  expect(mergeConnections(shared, own)).toEqual(merged)
})
