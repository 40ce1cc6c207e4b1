import { describe, expect, test } from 'vitest'
import { nativeAdapters } from '../../dist/nuxt/runtime/adapters.js'
import { mergeConnections, serverConfig, unknownVariableWarnings, type BuiltConfig } from '../../dist/nuxt/runtime/config.js'
import { applyEnvironment, variablesOf } from '../../dist/nuxt/runtime/environment.js'
import { isLeaf, moduleSchema, nventSchema, packagesSchema, type Group, type Leaf } from '../../dist/nuxt/schema.js'

const built = (config: Partial<BuiltConfig> = {}): BuiltConfig => ({ options: {}, section: {}, packages: {}, withNvent: false, ...config })
const sections: Array<[string, Group]> = [['nvent', nventSchema], ['nventNative', moduleSchema], ...Object.entries(packagesSchema)]

/** A text for a variable, and the value that it is read as. */
function sample({ kinds, rule: { values, min = 0 } }: Leaf): [string, unknown] {
  if (kinds.includes('string')) return values ? [values[0]!, values[0]] : ['123456', '123456']
  if (kinds.includes('number')) return [String(min + 5), min + 5]
  if (kinds.includes('boolean')) return ['true', true]
  if (kinds.includes('list')) return ['a, b', ['a', 'b']]
  return ['{"a":1}', { a: 1 }]
}

describe.each(sections)('the section %s', (name, schema) => {
  const leaves = [...variablesOf(schema, name)].filter(([, { schema }]) => isLeaf(schema))
  test.each(leaves)('is set by NUXT_%s where nuxt.config does not mention it', (variable, { path, schema: leaf }) => {
    const [text, value] = sample(leaf as Leaf)
    const { section, sources } = applyEnvironment({}, schema, name, { [`NUXT_${variable}`]: text })
    expect(path.reduce((at: any, key) => at[key], section)).toEqual(value)
    expect([...sources.values()]).toEqual([`NUXT_${variable}`])
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
    expect(store.redis).toEqual({ password: '123456', port: 7000 })
    expect(stream.redis).toEqual({ password: '123456', port: 7000 })
  })

  test('triggers are refused where nvent is', () => {
    const options = { triggers: './server/triggers.ts' }
    expect(() => serverConfig(built({ options }))).not.toThrow()
    expect(() => serverConfig(built({ options, withNvent: true }))).toThrow(/nventNative\.triggers does not go with nvent: its own triggers are in charge there/)
    expect(() => serverConfig(built({ options: { webhooks: './server/webhooks.ts' }, withNvent: true }))).toThrow(/nventNative\.webhooks does not go with nvent: start createWebhookWiring/)
  })

  test('an empty variable is none', () => {
    expect(serverConfig(built(), { NUXT_NVENT_CONNECTIONS_REDIS_USERNAME: '' }).store.redis).toEqual({})
  })

  test('name the variable that has a wrong value, and every problem at once', () => {
    const env = { NUXT_NVENT_STORE_ADAPTER: 'fille', NUXT_NVENT_CONNECTIONS_REDIS_PORT: 'x', NUXT_NVENT_NATIVE_DURABILITY: 'disc' }
    expect(() => serverConfig(built(), env)).toThrow(expect.objectContaining({
      code: 'NVENT_INVALID',
      message: [
        'wrong options:',
        `NUXT_NVENT_NATIVE_DURABILITY is "disc": did you mean 'disk'? Known: os, disk`,
        `NUXT_NVENT_STORE_ADAPTER is "fille": did you mean 'file'? Known: memory, file, redis`,
        'NUXT_NVENT_CONNECTIONS_REDIS_PORT is "x", but must be a number',
      ].join('\n  - '),
    }))
  })

  test.each([
    [{ queue: { defaultJobOptions: { attempts: -1 } } }, 'nvent.queue.defaultJobOptions.attempts is -1'],
    [{ connections: { redis: { port: 99_999 } } }, 'nvent.connections.redis.port is 99999, but must be a whole number from 1 to 65535'],
    [{ store: { file: { dataDir: null } } }, 'nvent.store.file.dataDir is null, but must be a string'],
    [{ stream: { file: { dataDir: 'x' } } }, 'nvent.stream.file is not an option'],
  ])('%j is refused', (section: any, message) => {
    expect(() => serverConfig(built({ section }))).toThrow(message)
  })

  test('a misspelt variable is named with the nearest, and those of nvent itself are known', () => {
    const env = { NUXT_NVENT_STORE_ADAPTR: 'file', NUXT_NVENT_FLOW_STEP_TIMEOUT: '1', NUXT_NVENT_STORE_ADAPTER: 'file', NUXT_NVENT_ZZZZZZZZZZ: '1', NUXT_OTHER: '1' }
    expect(unknownVariableWarnings({ flow: { stepTimeout: 1 } }, env)).toEqual([
      'the variable NUXT_NVENT_STORE_ADAPTR is not an option: did you mean NUXT_NVENT_STORE_ADAPTER?',
      'the variable NUXT_NVENT_ZZZZZZZZZZ is not an option',
    ])
  })

  test('reach every adapter: prefixes, retained topics, trimming, retention, durability', () => {
    const config = serverConfig(built({
      options: { durability: 'disk', retain: { topics: ['job:*'], maxLen: 7 }, retention: { maxAgeMs: 5 } },
      section: { store: { prefix: 'a', streams: { trim: { maxLen: 3 } } }, stream: { prefix: 'b' } },
    }))
    expect(config.store).toMatchObject({ prefix: 'a', trim: { maxLen: 3 }, file: { durability: 'disk', retention: { maxAgeMs: 5 } } })
    expect(config.stream).toMatchObject({ prefix: 'b', retain: { topics: ['job:*'], maxLen: 7 } })
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

  test('have defaults', () => {
    expect(serverConfig(built())).toEqual({
      store: { adapter: 'file', redis: {}, file: { dataDir: '.data/store' } }, stream: { adapter: 'memory', redis: {} },
      queue: { adapter: 'file', file: { dataDir: '.data/queue' } }, coordinator: {}, replace: true, openTimeout: 10_000,
    })
    expect(serverConfig(built({ options: { replace: false, openTimeout: 0 } }))).toMatchObject({ replace: false, openTimeout: 0 })
  })

  test.each([
    ['stores', 'file', /^nvent.store.file: .*wrong/],
    ['queues', 'file', /^nvent.queue: .*wrong/],
  ] as const)('durability is passed to the %s of files', (kind, backend, message) => {
    const config = serverConfig(built({ options: { durability: 'disk' } }))
    config.store.file.durability = config.queue.file.durability = 'wrong' as 'disk'
    expect(() => nativeAdapters(config)[kind][backend]!()).toThrow(message)
  })

  test('retained topics, trimming and prefixes are passed to the adapters on Redis', () => {
    const config = serverConfig(built())
    const wrong = (change: object, part: 'stores' | 'streams') => expect(() => nativeAdapters({ ...config, ...change })[part].redis!())
    wrong({ store: { ...config.store, prefix: 1 } }, 'stores').toThrow('prefix')
    wrong({ store: { ...config.store, trim: { maxLen: 'x' } } }, 'stores').toThrow('trim')
    wrong({ stream: { ...config.stream, prefix: 1 } }, 'streams').toThrow('prefix')
    wrong({ stream: { ...config.stream, retain: { topics: 'x' } } }, 'streams').toThrow('retain')
  })

  test('beside nvent its Redis packages are read, and text with a number in it is one', () => {
    const { store, stream } = serverConfig(built({
      withNvent: true,
      section: { connections: { redis: { host: 'shared', port: '6380' } }, stream: { connection: { host: 'third' } }, flow: {}, store: { adapter: 'postgres', schema: 'x' } } as any,
      packages: { nventStoreRedis: { connection: { host: 'other', password: 's' }, prefix: 'shop', streams: { trim: { maxLen: 50, approx: true } } }, nventStreamRedis: { prefix: 'live' } },
    }))
    expect(store).toMatchObject({ adapter: 'postgres', prefix: 'shop', redis: { host: 'other', port: 6380, password: 's' }, trim: { maxLen: 50, approx: true } })
    expect(stream).toMatchObject({ prefix: 'live', redis: { host: 'third', port: 6380 } })
  })
})

test.each([
  [{ url: 'redis://user:pass@host:7000/1' }, { db: 3 }, { host: 'host', port: 7000, username: 'user', password: 'pass', db: 3 }],
  [{ url: 'rediss://host' }, { password: 'p' }, { host: 'host', password: 'p', tls: true }],
  [{ host: 'a', password: 'p', db: 2 }, { url: 'redis://b:7000/4' }, { url: 'redis://b:7000/4', password: 'p' }],
  [{ url: 'redis://a' }, {}, { url: 'redis://a' }],
  [{}, { host: 'b' }, { host: 'b' }],
])('the connection %j with an adapter\'s own %j', (shared, own, merged) => {
  expect(mergeConnections(shared, own)).toEqual(merged)
})
