/**
 * The Nuxt module: `modules: ['nvent-native']`.
 *
 * With nvent installed it registers the native adapters there; without it, it reads the same `nvent` section,
 * opens the adapters and the wiring itself, and auto-imports the composables that nvent would have brought.
 */
import { addServerImports, addTypeTemplate, createResolver, defineNuxtModule, hasNuxtModule, resolveModule } from 'nuxt/kit'
import type { Nuxt, NuxtHooks, NuxtModule } from 'nuxt/schema'
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { check, withDefaults } from './options.js'
import type { ModuleOptions, NventSection } from './options.js'

export type { ModuleOptions, NventSection } from './options.js'

type NitroConfig = Parameters<NuxtHooks['nitro:config']>[0]

/** What server code imports. It loads the addon, which no bundler can inline. */
const NATIVE = 'nvent-native/native'
const COMPOSABLES = ['useStoreAdapter', 'useStreamAdapter', 'useQueueAdapter', 'getEventBus']

const nventNative: NuxtModule<ModuleOptions> = defineNuxtModule<ModuleOptions>({
  meta: { name: 'nvent-native', configKey: 'nventNative', compatibility: { nuxt: '>=3.17.0' } },
  defaults: { replace: true },
  setup(options: ModuleOptions, nuxt: Nuxt) {
    // Decided once every module is there, so that the place in the list of modules does not matter.
    nuxt.hook('modules:done', () => {
      const { resolve } = createResolver(import.meta.url)
      const withNvent = hasNuxtModule('nvent', nuxt)
      const section = nventSection(nuxt)
      check(options, section, withNvent)

      const runtimeConfig: Record<string, unknown> = nuxt.options.runtimeConfig
      runtimeConfig.nventNative = withDefaults(
        { ...options, flow: section.wiring?.flow },
        { coordinator: section.wiring?.streamCoordinator ?? {} },
      )
      if (!withNvent) {
        runtimeConfig.nvent = adaptersConfig(section)
        addServerImports(COMPOSABLES.map(name => ({ name, from: resolve('./runtime/composables') })))
      }
      addTypes(resolve('./types'), withNvent)

      nuxt.hook('nitro:config', (nitro: NitroConfig) => {
        // First of all plugins: nvent asks for adapters inside the first of its own.
        nitro.plugins = [resolve(withNvent ? './runtime/with-nvent' : './runtime/standalone'), ...nitro.plugins ?? []]
        keepExternal(nitro)
      })
    })
  },
})

export default nventNative

/** The user's `nvent` section, options given beside the module's name included. */
function nventSection(nuxt: Nuxt): NventSection {
  const entry = nuxt.options.modules.find(entry => Array.isArray(entry) && entry[0] === 'nvent')
  const section: NventSection = (nuxt.options as { nvent?: NventSection }).nvent ?? {}
  return withDefaults(Array.isArray(entry) ? { ...entry[1] } : {}, section)
}

/** Environment variables (NUXT_NVENT_STORE_ADAPTER …) only reach options that are there, so these are written out. */
function adaptersConfig({ wiring: _, ...section }: NventSection) {
  const base = section.connections?.file?.dataDir ?? '.data'
  return withDefaults(section, {
    store: { adapter: 'file', file: { dataDir: `${base}/store` } },
    stream: { adapter: 'memory' },
    queue: { adapter: 'file', file: { dataDir: `${base}/queue` } },
    connections: { redis: { url: '' } },
  })
}

/** Nitro leaves the addon alone in dev, and copies it beside the server in a build. */
function keepExternal(nitro: NitroConfig) {
  const file = realpathSync(resolveModule(NATIVE, { url: new URL(import.meta.url) }))
  if (file.split(/[\\/]/).includes('node_modules')) {
    const isNative = (id: string) => id === NATIVE || id === file.replaceAll('\\', '/')
    nitro.externals = {
      ...nitro.externals,
      external: [...nitro.externals?.external ?? [], isNative],
      traceInclude: [...nitro.externals?.traceInclude ?? [], addonOf(file)],
    }
  }
  else {
    // A linked checkout: Nitro copies only what lies in node_modules, so the server loads it from where it is.
    nitro.rollupConfig = { ...nitro.rollupConfig, external: [NATIVE] } as NitroConfig['rollupConfig']
  }
}

/** The addon is loaded by a name made at run time, which no tracing sees: a file of the package, or a package of its own. */
function addonOf(entry: string): string {
  const target = `${process.platform}-${process.arch}`
  const beside = join(dirname(entry), '..', `nvent-native.${target}.node`)
  return existsSync(beside) ? beside : resolveModule(`nvent-native-${target}`, { url: pathToFileURL(entry) })
}

/** The section and the hooks, typed in nuxt.config and on the server. nvent types its own section. */
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
