/**
 * Builds the package in place: the addon (Rust), the JavaScript face, the Nuxt module.
 * `--debug` builds the addon with the dev profile, `--js` leaves it as it is.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { build } from 'esbuild'
import { addon, bindingTypes, root, run, targetDir } from './shared.mjs'

process.chdir(root)
const flags = new Set(process.argv.slice(2))

if (!flags.has('--js')) buildAddon(flags.has('--debug') ? 'debug' : 'release')
await buildFace()
await buildCommand()
await buildNuxt()

function buildAddon(profile) {
  const found = spawnSync('cargo', ['--version'])
  if (found.error || found.status !== 0) {
    console.error([
      'nvent-native is built from source here, and that needs Rust, which is not on the PATH.',
      '  missing: cargo (Rust 1.95 or newer) and a C compiler (gcc or clang) to link with',
      '  get it:  https://rustup.rs, or your system\'s packages; then run `npm run build`',
    ].join('\n'))
    process.exit(1)
  }
  // Cargo itself, as `napi build` always passes --target, and everything would be compiled once more than for the tests. The
  // types are the same: napi-derive writes them where this variable says, and scripts/types.mjs reads them.
  const types = bindingTypes(profile)
  mkdirSync(types.dir, { recursive: true })
  run('cargo', ['build', '--lib', ...profile === 'release' ? ['--release'] : []], {
    NAPI_TYPE_DEF_TMP_FOLDER: types.dir,
    // Built without them before: the crate is compiled again.
    ...existsSync(join(targetDir, profile)) && !existsSync(types.file) && { NAPI_FORCE_BUILD_NVENT_NATIVE: String(Date.now()) },
  })
  const name = { darwin: 'libnvent_native.dylib', win32: 'nvent_native.dll' }[process.platform] ?? 'libnvent_native.so'
  // Beside and then over the old one: a process that has that loaded keeps it.
  copyFileSync(join(targetDir, profile, name), `${addon}.new`)
  renameSync(`${addon}.new`, addon)
}

/** Builds one implementation, for require; import gets the very same objects. */
async function buildFace() {
  await build({
    entryPoints: ['lib/index.ts'],
    outfile: 'dist/index.cjs',
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    // The addon, which lib/loader.ts requires by literal names, and the application's own tracing.
    external: ['*.node', 'nvent-native-*', '@opentelemetry/api'],
  })
  const names = Object.keys(createRequire(import.meta.url)('../dist/index.cjs')).sort()
  const lines = ['import native from \'./index.cjs\'', '', 'export const {', ...names.map(name => `  ${name},`), '} = native', '']
  writeFileSync('dist/index.mjs', lines.join('\n'))
}

/** Builds the command, with the libraries that only it uses: the package has no dependencies. */
async function buildCommand() {
  await build({
    entryPoints: ['lib/cli/main.ts'], outfile: 'dist/cli.cjs', bundle: true, minifyWhitespace: true, format: 'cjs', platform: 'node', target: 'node20',
    external: ['*.node', 'nvent-native-*', '@opentelemetry/api'],
    logLevel: 'warning',
  })
}

async function buildNuxt() {
  if (!existsSync('nuxt/tsconfig.json')) return
  for (const dir of ['dist/nuxt', 'dist/lib']) rmSync(dir, { recursive: true, force: true })
  // Not @nuxt/module-builder: it builds `src/module`, and src is the crate; what the module and its runtime share it puts into
  // the module alone, so that runtime/config.js finds no schema.js; and it refuses `nuxt/kit`, which saves a dependency.
  run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'nuxt'])
  await writeModuleMeta()
  await buildInspector()
}

/** Writes what Nuxt and its tools read of a module without running it. */
async function writeModuleMeta() {
  const { default: module } = await import('../dist/nuxt/module.js')
  const { name, version } = JSON.parse(readFileSync('package.json', 'utf8'))
  const meta = { name, version, ...await module.getMeta() }
  writeFileSync('dist/nuxt/module.json', `${JSON.stringify(meta, null, 2)}\n`)
}

/** Writes the names of the packages that the bundle contains: the notices have their licences. */
function bundledPackages() {
  return {
    name: 'bundled-packages',
    generateBundle(_, bundle) {
      const modules = Object.values(bundle).flatMap(({ moduleIds = [] }) => moduleIds)
      const names = modules.flatMap(id => /.*[\\/]node_modules[\\/]((?:@[^\\/]+[\\/])?[^\\/]+)/.exec(id)?.[1]?.replaceAll('\\', '/') ?? [])
      this.emitFile({ type: 'asset', fileName: 'packages.json', source: JSON.stringify([...new Set(names)].sort()) })
    },
  }
}

/** Builds one script and one style, which the module makes part of a server: an app installs nothing for it. */
async function buildInspector() {
  const [{ build }, { default: vue }] = await Promise.all([import('vite'), import('@vitejs/plugin-vue')])
  await build({
    configFile: false,
    logLevel: 'warn',
    root: 'inspector',
    plugins: [vue(), bundledPackages()],
    define: { __VUE_OPTIONS_API__: 'false', __VUE_PROD_DEVTOOLS__: 'false', __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: 'false' },
    build: {
      outDir: '../dist/nuxt/inspector',
      emptyOutDir: true,
      modulePreload: false,
      cssCodeSplit: false,
      rollupOptions: {
        input: 'inspector/main.ts',
        output: { entryFileNames: 'app.js', assetFileNames: 'app[extname]', codeSplitting: false },
      },
    },
  })
}
