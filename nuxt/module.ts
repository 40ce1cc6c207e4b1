/**
 * The Nuxt module: `modules: ['nvent-native']`.
 *
 * With nvent installed it registers the native adapters there; without it, it reads the same `nvent` section,
 * opens the adapters and the wiring itself, and auto-imports the composables that nvent would have brought.
 */
import { addImports, addServerHandler, addServerImports, addTypeTemplate, createResolver, defineNuxtModule, hasNuxtModule, resolveModule, resolvePath, useLogger } from 'nuxt/kit'
import type { Nuxt, NuxtHooks, NuxtModule } from 'nuxt/schema'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { withDefaults } from './options.js'
import type { AdapterPackages, ModuleOptions, NventSection } from './options.js'
import { checkPreset } from './presets.js'
import type { BuiltConfig } from './runtime/config.js'

export type { ModuleOptions, NventSection } from './options.js'

type NitroConfig = Parameters<NuxtHooks['nitro:config']>[0]

/** What server code imports. It loads the addon, which no bundler can inline. */
const NATIVE = 'nvent-native/native'
const COMPOSABLES = ['useStoreAdapter', 'useStreamAdapter', 'useQueueAdapter', 'getEventBus']
/** nvent's packages whose adapters this module replaces, by the name of their module. */
const REPLACED = ['@nvent/adapter-store-redis', '@nvent/adapter-stream-redis']

const nventNative: NuxtModule<ModuleOptions> = defineNuxtModule<ModuleOptions>({
  meta: { name: 'nvent-native', configKey: 'nventNative', compatibility: { nuxt: '>=3.17.0' } },
  setup(options: ModuleOptions, nuxt: Nuxt) {
    // When every module has been set up, so that the order of the list of modules does not matter.
    nuxt.hook('modules:done', async () => {
      const { resolve } = createResolver(import.meta.url)
      const withNvent = hasNuxtModule('nvent', nuxt)
      if (!withNvent) refuseFunctions((nuxt.options as { nvent?: NventSection }).nvent, 'nvent')
      // The checks name whatever else is wrong in it.
      plain('nventNative', options)
      const built: BuiltConfig = { options, section: nventSection(nuxt, withNvent), packages: packageSections(nuxt), withNvent }
      await check(built)

      const runtimeConfig: Record<string, unknown> = nuxt.options.runtimeConfig
      runtimeConfig.nventNative = built
      if (!withNvent) {
        runtimeConfig.nvent = built.section
        addServerImports(COMPOSABLES.map(name => ({ name, from: resolve('./runtime/composables') })))
      }
      else if (options.replace !== false) {
        for (const name of REPLACED.filter(name => hasNuxtModule(name, nuxt))) {
          useLogger('nvent-native').info(`The native Redis adapters take the place of those of ${name}, which can be removed; its options stay in force.`)
        }
      }
      addTypes(resolve('./types'), withNvent)
      if (options.realtime) await addRealtime(nuxt, built, resolve)
      if (options.metrics) await addMetrics(nuxt, options, resolve)
      if (!withNvent) await addTriggers(nuxt, options, resolve)
      if (!withNvent) await addServerFile(nuxt, 'webhooks', options.webhooks)
      if (options.inspector ?? nuxt.options.dev) await addInspector(nuxt, built, resolve)

      nuxt.hook('nitro:config', (nitro: NitroConfig) => {
        // First of all plugins: nvent asks for adapters inside the first of its own.
        nitro.plugins = [resolve(withNvent ? './runtime/with-nvent' : './runtime/standalone'), ...nitro.plugins ?? []]
        keepExternal(nitro)
      })
      nuxt.hook('nitro:init', nitro => checkPreset(nitro.options, built))
    })
  },
})

export default nventNative

/** Gives the triggers to the server, and mounts the route of signed requests. */
async function addTriggers(nuxt: Nuxt, options: ModuleOptions, resolve: (path: string) => string) {
  await addServerFile(nuxt, 'triggers', options.triggers)
  if (options.triggers !== undefined) addServerHandler({ route: `${basePath(options.realtime)}/webhooks/:trigger`, handler: resolve('./runtime/webhook') })
}

/** Gives the default export of a server file to the server, as `#nvent-native/<option>`. */
async function addServerFile(nuxt: Nuxt, option: 'triggers' | 'webhooks', value: string | undefined) {
  const file = await serverFile(option, value)
  nuxt.hook('nitro:config', (nitro: NitroConfig) => {
    nitro.virtual = {
      ...nitro.virtual,
      [`#nvent-native/${option}`]: file === undefined ? `export const ${option} = undefined` : `export { default as ${option} } from ${JSON.stringify(file)}`,
    }
  })
}

/** Mounts the events of runs for the browser. */
async function addRealtime(nuxt: Nuxt, { options: { realtime }, section, withNvent }: BuiltConfig, resolve: (path: string) => string) {
  const base = basePath(realtime)
  const file = await serverFile('realtime.authorize', realtime!.authorize)
  addServerHandler({ route: `${base}/runs/:runId/events`, method: 'get', handler: resolve('./runtime/realtime/run-events') })
  const publicConfig: Record<string, unknown> = nuxt.options.runtimeConfig.public
  publicConfig.nventNative = { realtime: base }
  nuxt.options.build.transpile.push(resolve('./runtime/realtime'))
  addImports({ name: 'useFlowRun', from: resolve('./runtime/realtime/useFlowRun') })
  const subject = withNvent ? `${section.store?.prefix ?? 'nvent'}:flow:run:{runId}` : undefined
  nuxt.hook('nitro:config', (nitro: NitroConfig) => {
    nitro.virtual = {
      ...nitro.virtual,
      '#nvent-native/realtime': [
        authorizeOf(file),
        `export const runSubject = ${JSON.stringify(subject)}`,
      ].join('\n'),
    }
  })
}

/** Mounts the metrics. */
async function addMetrics(nuxt: Nuxt, { metrics, realtime }: ModuleOptions, resolve: (path: string) => string) {
  const { authorize } = typeof metrics === 'object' ? metrics : {}
  const file = await serverFile('metrics.authorize', authorize) ?? await serverFile('realtime.authorize', realtime?.authorize)
  addServerHandler({ route: `${basePath(realtime)}/metrics`, method: 'get', handler: resolve('./runtime/metrics') })
  nuxt.hook('nitro:config', (nitro: NitroConfig) => {
    nitro.virtual = { ...nitro.virtual, '#nvent-native/metrics': authorizeOf(file) }
  })
}

/** Mounts the inspector, whose page becomes a part of the server, and adds it to Nuxt DevTools. */
async function addInspector(nuxt: Nuxt, { options: { inspector, realtime }, section, withNvent }: BuiltConfig, resolve: (path: string) => string) {
  const { authorize } = typeof inspector === 'object' ? inspector : {}
  const file = await serverFile('inspector.authorize', authorize)
  const path = `${basePath(realtime)}/inspector`
  for (const route of [path, `${path}/**`]) addServerHandler({ route, handler: resolve('./runtime/inspector/handler') })
  // Not as text: Nitro replaces `typeof window` and the like also within it.
  const asset = (file: string) => `Buffer.from('${readFileSync(resolve(`./inspector/${file}`), 'base64')}', 'base64').toString()`
  const prefix = withNvent ? section.store?.prefix ?? 'nvent' : undefined
  nuxt.hook('nitro:config', (nitro: NitroConfig) => {
    nitro.virtual = {
      ...nitro.virtual,
      '#nvent-native/inspector': [
        authorizeOf(file),
        `export const path = ${JSON.stringify(path)}`,
        `export const prefix = ${JSON.stringify(prefix)}`,
        `export const script = ${asset('app.js')}`,
        `export const style = ${asset('app.css')}`,
      ].join('\n'),
    }
  })
  // The hook of Nuxt DevTools, which may not be installed.
  nuxt.hook('devtools:customTabs' as never, ((tabs: object[]) => {
    const src = `${nuxt.options.app.baseURL.replace(/\/$/, '')}${path}`
    tabs.push({ name: 'nvent', title: 'nvent', icon: 'carbon:flow', category: 'server', view: { type: 'iframe', src } })
  }) as never)
}

/** Returns where the routes of this module are mounted. */
function basePath(realtime: ModuleOptions['realtime']): string {
  const { path = '/_nvent' } = realtime ?? {}
  if (!path.startsWith('/')) throw new Error(`nvent-native, in nuxt.config: nventNative.realtime.path is ${JSON.stringify(path)}: it must begin with "/"`)
  return path.replace(/\/+$/, '')
}

/** Returns the path of a server file that an option names. */
async function serverFile(option: string, value: string | undefined): Promise<string | undefined> {
  if (value === undefined) return
  const file = await resolvePath(value)
  if (!existsSync(file)) throw new Error(`nvent-native, in nuxt.config: nventNative.${option} is ${JSON.stringify(value)}: there is no such file`)
  return file
}

/** Returns a module that exports what a server file decides with. */
const authorizeOf = (file: string | undefined): string =>
  file === undefined ? 'export const authorize = undefined' : `export { default as authorize } from ${JSON.stringify(file)}`

/** Returns the `nvent` section as the user wrote it, options given beside the module's name included. */
function nventSection(nuxt: Nuxt, withNvent: boolean): NventSection {
  const entry = nuxt.options.modules.find(entry => Array.isArray(entry) && entry[0] === 'nvent')
  const section: NventSection = plain('nvent', (nuxt.options as { nvent?: NventSection }).nvent ?? {})
  const written = withDefaults(plain('nvent', Array.isArray(entry) ? { ...entry[1] } : {}), section)
  // nvent fills in the shared connections from variables that it reads during the build.
  const { connections } = (nuxt.options.runtimeConfig.nvent ?? {}) as NventSection
  return withNvent && connections ? withDefaults(written, { connections: plain('nvent.connections', connections) }) : written
}

/** Returns the sections of nvent's Redis packages, whether or not these are installed. */
function packageSections(nuxt: Nuxt): AdapterPackages {
  const { nventStoreRedis, nventStreamRedis } = nuxt.options as AdapterPackages
  const { nventStoreRedis: store, nventStreamRedis: stream } = nuxt.options.runtimeConfig as AdapterPackages
  return {
    nventStoreRedis: withDefaults(plain('nventStoreRedis', nventStoreRedis ?? {}), plain('nventStoreRedis', store ?? {})),
    nventStreamRedis: withDefaults(plain('nventStreamRedis', nventStreamRedis ?? {}), plain('nventStreamRedis', stream ?? {})),
  }
}

/** Fails the build where the start of the server would fail, by the same code. */
async function check(built: BuiltConfig) {
  const [{ serverConfig }, { nativeAdapters }, { createWiringRegistry }] = await Promise.all([
    import('./runtime/config.js'), import('./runtime/adapters.js'), import('nvent-native/native'),
  ])
  try {
    const config = serverConfig(built)
    const { stores, streams, queues } = nativeAdapters(config)
    stores[config.store.adapter]?.()
    streams[config.stream.adapter]?.()
    queues[config.queue.adapter]?.()
    createWiringRegistry({ streamCoordinator: config.coordinator, flow: config.flow })
  }
  catch (error) {
    throw new Error(`nvent-native, in nuxt.config: ${(error as Error).message}`, { cause: error })
  }
}

/** Refuses functions, the steps of a flow say: they would be missing in the server, whose configuration is data. */
function refuseFunctions(value: unknown, path: string, above: object[] = []): void {
  if (typeof value === 'function') {
    throw new Error(`nvent-native, in nuxt.config: ${path} is a function, and the configuration of a built server is data: pass it to the wiring in the Nitro hook nvent:wiring (docs/nuxt.md, "Where flows and workers go")`)
  }
  if (typeof value !== 'object' || value === null || above.includes(value)) return
  for (const [key, inner] of Object.entries(value)) refuseFunctions(inner, `${path}.${key}`, [...above, value])
}

/** Returns what is left of a section in the runtime config, which is JSON. */
function plain<T>(path: string, value: T): T {
  try {
    return JSON.parse(JSON.stringify(value))
  }
  catch (error) {
    throw new Error(`nvent-native, in nuxt.config: ${path} has no JSON, and the configuration of a built server is data: ${(error as Error).message}`, { cause: error })
  }
}

/** Makes Nitro leave the addon alone in dev, and copy it beside the server in a build. */
function keepExternal(nitro: NitroConfig) {
  const file = realpathSync(resolveModule(NATIVE, { url: new URL(import.meta.url) }))
  if (file.split(/[\\/]/).includes('node_modules')) {
    const isNative = (id: string) => id === NATIVE || id === file.replaceAll('\\', '/')
    nitro.externals = {
      ...nitro.externals,
      external: [...nitro.externals?.external ?? [], isNative],
      traceInclude: [...nitro.externals?.traceInclude ?? [], ...addonsOf(file)],
    }
  }
  else {
    // A linked checkout: Nitro copies only what lies in node_modules, so the server loads it from where it is.
    nitro.rollupConfig = { ...nitro.rollupConfig, external: [NATIVE] } as NitroConfig['rollupConfig']
  }
}

/** Returns the addons that are installed, in the package or in packages of their own: Nitro copies them beside the server. */
function addonsOf(entry: string): string[] {
  const { platform, arch } = process
  const targets = platform === 'linux'
    ? [`linux-${arch}-gnu`, `linux-${arch}-musl`]
    : [platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`]
  return targets.flatMap((target) => {
    const beside = join(dirname(entry), '..', `nvent-native.${target}.node`)
    if (existsSync(beside)) return [beside]
    try {
      return [resolveModule(`nvent-native-${target}`, { url: pathToFileURL(entry) })]
    }
    catch {
      return []
    }
  })
}

/** Adds the types of the section and the hooks, for nuxt.config and the server. nvent types its own section. */
function addTypes(types: string, withNvent: boolean) {
  const section = `interface NuxtConfig { nvent?: import(${JSON.stringify(types)}).NventSection }`
  addTypeTemplate({
    filename: 'types/nvent-native.d.ts',
    getContents: () => [
      `import type {} from ${JSON.stringify(types)}`,
      ...withNvent ? [] : [`declare module '@nuxt/schema' { ${section} }`, `declare module 'nuxt/schema' { ${section} }`],
    ].join('\n'),
  }, { nuxt: true, node: true, nitro: true })
}
