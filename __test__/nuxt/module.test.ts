/** What the module adds to an app, as Nuxt prepares it: nothing is built. */
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadNuxt, logger } from 'nuxt/kit'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { checkPreset } from '../../dist/nuxt/presets.js'

const NVENT = fileURLToPath(new URL('./fixtures/nvent/module.mjs', import.meta.url))
const MODULE = fileURLToPath(new URL('../../dist/nuxt/module.js', import.meta.url))
let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'nvent-module-'))
  await writeFile(join(dir, 'decides.ts'), 'export default () => true')
  const installed = fileURLToPath(new URL('../../node_modules', import.meta.url))
  await mkdir(join(dir, 'node_modules'))
  for (const name of await readdir(installed)) await symlink(join(installed, name), join(dir, 'node_modules', name))
  await symlink(fileURLToPath(new URL('./fixtures/nvent', import.meta.url)), join(dir, 'node_modules/nvent'))
})
afterAll(() => rm(dir, { recursive: true }))

/** Returns what the server of an app would be built from. */
const prepared = async (config: object, dev = false) => {
  let nitro: any
  const tabs: any[] = []
  let imported: any
  const nuxt = await loadNuxt({
    cwd: dir, dev, ready: false, defaults: { telemetry: false } as object,
    overrides: { modules: [MODULE], ...config, hooks: { 'nitro:init': (made: any) => void (nitro = made), 'imports:context': (context: any) => void (imported = context) } } as object,
  })
  try {
    await nuxt.ready()
    await nuxt.callHook('devtools:customTabs' as never, tabs as never)
    const { plugins, virtual, imports } = nitro.options
    return {
      plugin: plugins[0].split('/').at(-1), tabs, virtual,
      routes: nuxt.options.serverHandlers.flatMap(({ route, method }: { route?: string, method?: string }) => route?.match(/_nvent|own/) ? [`${method ?? 'all'} ${route}`] : []),
      types: nuxt.options.build.templates.find(({ filename }: { filename?: string }) => filename === 'types/nvent-native.d.ts')?.getContents?.({} as never) as string,
      inBrowser: (await imported.getImports()).flatMap(({ name, from }: any) => from.includes('/runtime/realtime/') ? [name] : []),
      transpiled: nuxt.options.build.transpile.map(String).filter((path: string) => path.includes('/runtime/realtime')).length,
      composables: imports.imports.flatMap(({ name, from }: any) => from.endsWith('/runtime/composables') ? [name] : []),
      config: nuxt.options.runtimeConfig as any,
    }
  }
  finally {
    await nuxt.close()
  }
}

test('by itself it opens the adapters, and mounts nothing', async () => {
  const { plugin, routes, config, virtual, tabs, composables, inBrowser, transpiled, types } = await prepared({ nvent: { store: { adapter: 'memory' } }, nventStoreRedis: { prefix: 'shop' } })
  expect([plugin, routes, tabs, inBrowser, transpiled]).toEqual(['standalone', [], [], [], 0])
  expect(composables).toEqual(['useStoreAdapter', 'useStreamAdapter', 'useQueueAdapter', 'getEventBus'])
  expect(config.nvent).toEqual({ store: { adapter: 'memory' } })
  for (const module of ['@nuxt/schema', 'nuxt/schema']) expect(types).toContain(`declare module '${module}' { interface NuxtConfig { nvent?: `)
  expect(config.nventNative).toMatchObject({ section: { store: { adapter: 'memory' } }, packages: { nventStoreRedis: { prefix: 'shop' } }, withNvent: false })
  expect([virtual['#nvent-native/triggers'], virtual['#nvent-native/webhooks']]).toEqual(['export const triggers = undefined', 'export const webhooks = undefined'])
})

test('each option mounts its routes, with the files that decide', async () => {
  const [file, decides] = [join(dir, 'decides.ts'), `export { default as authorize } from ${JSON.stringify(join(dir, 'decides.ts'))}`]
  const { routes, config, virtual, tabs, inBrowser, transpiled } = await prepared({
    app: { baseURL: '/base/' },
    nventNative: { realtime: { path: '/own/', authorize: file }, metrics: true, inspector: true, triggers: file, webhooks: file, openTimeout: 5 },
  })
  expect(routes).toEqual(['get /own/runs/:runId/events', 'get /own/metrics', 'all /own/webhooks/:trigger', 'all /own/inspector', 'all /own/inspector/**'])
  expect(config.public.nventNative).toEqual({ realtime: '/own' })
  expect([inBrowser, transpiled]).toEqual([['useFlowRun'], 1])
  expect(config.nventNative.options.openTimeout).toBe(5)
  expect(tabs).toMatchObject([{ name: 'nvent', view: { type: 'iframe', src: '/base/own/inspector' } }])
  expect(virtual).toMatchObject({
    '#nvent-native/realtime': `${decides}\nexport const runSubject = undefined`,
    // Metrics are decided on by the file for runs where they have none; the inspector is not.
    '#nvent-native/metrics': decides,
    '#nvent-native/inspector': expect.stringMatching(/^export const authorize = undefined\nexport const path = "\/own\/inspector"\nexport const prefix = undefined\n/),
    '#nvent-native/triggers': `export { default as triggers } from ${JSON.stringify(file)}`,
    '#nvent-native/webhooks': `export { default as webhooks } from ${JSON.stringify(file)}`,
  })
})

test('in development the inspector is there, unless it is turned off', async () => {
  expect((await prepared({ nvent: { store: { adapter: 'memory' } } }, true)).routes).toEqual(['all /_nvent/inspector', 'all /_nvent/inspector/**'])
  expect((await prepared({ nventNative: { inspector: false } }, true)).routes).toEqual([])
})

test('metrics and the inspector have files of their own that decide, and none decides without one', async () => {
  const [file, decides] = [join(dir, 'decides.ts'), `export { default as authorize } from ${JSON.stringify(join(dir, 'decides.ts'))}`]
  const { virtual, routes } = await prepared({ nventNative: { realtime: {}, metrics: { authorize: file }, inspector: { authorize: file } } })
  expect(routes).toEqual(['get /_nvent/runs/:runId/events', 'get /_nvent/metrics', 'all /_nvent/inspector', 'all /_nvent/inspector/**'])
  expect(virtual['#nvent-native/realtime']).toContain('export const authorize = undefined')
  expect([virtual['#nvent-native/metrics'], virtual['#nvent-native/inspector'].split('\n')[0]]).toEqual([decides, decides])
})

test('beside nvent, wherever it is in the list, it registers adapters, and reads the subjects of nvent', async () => {
  for (const modules of [[NVENT, MODULE], [MODULE, NVENT]]) {
    const { plugin, config, composables, virtual, types } = await prepared({ modules, nvent: { store: { prefix: 'shop' } }, nventNative: { realtime: {}, inspector: true } })
    expect([plugin, composables, config.nventNative.withNvent]).toEqual(['with-nvent', [], true])
    expect(virtual['#nvent-native/realtime']).toContain('export const runSubject = "shop:flow:run:{runId}"')
    expect(virtual['#nvent-native/inspector']).toContain('export const prefix = "shop"')
    for (const option of ['triggers', 'webhooks']) expect(virtual).not.toHaveProperty(`#nvent-native/${option}`)
    expect(types).not.toContain('nvent?:')
  }
})

test('what is written beside the name of nvent comes before its section, and the connections that it fills in after it', async () => {
  const { config } = await prepared({
    modules: [['nvent', { store: { adapter: 'memory', prefix: 'beside' }, queue: { adapter: 'memory' } }], MODULE],
    nvent: { store: { prefix: 'section', streams: { trim: { maxLen: 5 } } }, connections: { redis: { host: 'written' } } },
  })
  expect(config.nventNative.section).toEqual({
    store: { adapter: 'memory', prefix: 'beside', streams: { trim: { maxLen: 5 } } }, queue: { adapter: 'memory' }, connections: { redis: { host: 'written' }, file: { dataDir: '.data' } },
  })
})

test('without nvent the connections are those of nuxt.config', async () => {
  const { config } = await prepared({ runtimeConfig: { nvent: { connections: { redis: { host: 'of.another' } } } } })
  expect(config.nventNative.section).not.toHaveProperty('connections')
})

test('a value without JSON fails where the app is prepared, in words', async () => {
  for (const modules of [[MODULE], [NVENT, MODULE]]) {
    await expect(prepared({ modules, nvent: { own: 5n } })).rejects.toThrow(/^nvent-native, in nuxt\.config: nvent has no JSON.*BigInt/)
    await expect(prepared({ modules, nventStreamRedis: { prefix: 5n } })).rejects.toThrow(/^nvent-native, in nuxt\.config: nventStreamRedis has no JSON.*BigInt/)
  }
  const circular: any = { store: { adapter: 'memory' } }
  circular.own = circular
  for (const name of ['nvent', 'nventNative', 'nventStoreRedis']) {
    await expect(prepared({ [name]: circular })).rejects.toThrow(new RegExp(`^nvent-native, in nuxt\\.config: ${name} has no JSON.*circular`))
  }
})

test.each([
  [{ nitro: { preset: 'cloudflare-module' } }, 'cannot run on the Nitro preset'],
  [{ nventNative: { realtime: { path: 'own' } } }, 'nventNative.realtime.path is "own": it must begin with "/"'],
  [{ nventNative: { realtime: { authorize: './none' } } }, 'nventNative.realtime.authorize is "./none": there is no such file'],
  [{ nventNative: { metrics: { authorize: './none' } } }, 'nventNative.metrics.authorize is "./none": there is no such file'],
  [{ nventNative: { inspector: { authorize: './none' } } }, 'nventNative.inspector.authorize is "./none": there is no such file'],
  [{ nventNative: { triggers: './none' } }, 'nventNative.triggers is "./none": there is no such file'],
  [{ nventNative: { webhooks: './none' } }, 'nventNative.webhooks is "./none": there is no such file'],
  [{ nventNative: { durabilty: 'os' } }, 'nventNative.durabilty: unknown option; did you mean "durability"?'],
  [{ nvent: { store: { adapter: 'redis', redis: { url: 'redis://h/1', db: 2 } } } }, 'nvent.store.redis.db: contradicts'],
  [{ nvent: { stream: { adapter: 'redis', retain: { maxLen: 5 } } } }, 'nvent.stream.retain.topics: required'],
  [{ nvent: { queue: { adapter: 'memory', defaultJobOptions: { attempts: 0 } } } }, 'nvent.queue.defaultJobOptions.attempts'],
  [{ nvent: { wiring: { streamCoordinator: { channels: [{ name: 'a', types: ['b'], topic: 'c:{' }] } } } }, 'streamCoordinator.channels[0].topic: "c:{" has an unbalanced brace'],
  [{ nvent: { wiring: { flow: { subjects: { run: 'run' } } } } }, 'subjects.run: must contain {runId}'],
  [{ nvent: { wiring: { flow: { flows: [{ id: 'f', steps: { b: { subscribes: ['step:nosuch'] } } }] } } } }, 'no step "nosuch"'],
  [{ nvent: { wiring: { flow: { flows: [{ id: 'a.b', steps: { a: () => 1 } }] } } } }, 'nvent.wiring.flow.flows.0.steps.a is a function'],
])('%j fails where the app is prepared', async (config, message) => {
  await expect(prepared(config)).rejects.toThrow(message)
})

test.each(['cloudflare-pages', 'vercel-edge', 'netlify-edge', 'deno-deploy', 'winterjs', 'service-worker'])('the preset %s, which has no Node, is refused', (preset) => {
  expect(() => checkPreset({ preset, node: true }, { section: {} } as never)).toThrow(`cannot run on the Nitro preset '${preset}'`)
  expect(() => checkPreset({ preset, node: true, static: true }, { section: {} } as never)).not.toThrow()
})

test('a preset without Node is refused whatever its name, and what renders during the build or in development is not', () => {
  expect(() => checkPreset({ preset: 'own', node: false }, { section: {} } as never)).toThrow('cannot run on the Nitro preset \'own\'')
  for (const preset of ['nitro-dev', 'nitro-prerender']) expect(() => checkPreset({ preset, node: false }, { section: {} } as never)).not.toThrow()
})

test.each([
  ['vercel', {}, 'nvent.store.adapter and nvent.queue.adapter is'],
  ['aws-lambda', { store: { adapter: 'redis' } }, ' and nvent.queue.adapter is'],
  ['netlify', { store: { adapter: 'file' }, queue: { adapter: 'own' } }, ' and nvent.store.adapter is'],
  ['vercel', { store: { adapter: 'memory' }, queue: { adapter: 'memory' } }, undefined],
  ['node-server', {}, undefined],
])('the preset %s with %j warns of files that end with their instance', (preset, section, named) => {
  const warn = vi.fn()
  logger.mockTypes(type => type === 'warn' ? warn : () => {})
  checkPreset({ preset, node: true }, { section } as never)
  expect(warn.mock.calls).toEqual(named === undefined ? [] : [[expect.stringContaining(`${named} 'file'`)]])
})
