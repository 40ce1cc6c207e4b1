// Builds the addon with cargo and the JavaScript face with esbuild. `--debug`: an addon that is quick to build.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const debug = process.argv.includes('--debug')

if (spawnSync('cargo', ['--version']).status !== 0) {
  console.error([
    'nvent-native is built from source here, and `cargo` was not found.',
    'Install Rust 1.89 or later from https://rustup.rs and a C compiler (Debian: apt install build-essential),',
    'then run `npm run build`.',
  ].join('\n'))
  process.exit(1)
}

const cargo = spawnSync('cargo', ['build', '--lib', ...debug ? [] : ['--release']], { cwd: root, stdio: 'inherit' })
if (cargo.status !== 0) process.exit(cargo.status ?? 1)

const library = { win32: 'nvent_native.dll', darwin: 'libnvent_native.dylib' }[process.platform] ?? 'libnvent_native.so'
const target = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), debug ? 'debug' : 'release', library)
const addon = path.join(root, `nvent-native.${process.platform}-${process.arch}.node`)
// Renamed into place: a process that has the old one loaded keeps it.
copyFileSync(target, `${addon}.new`)
renameSync(`${addon}.new`, addon)

const { build } = await import('esbuild')
mkdirSync(path.join(root, 'dist'), { recursive: true })
await build({
  absWorkingDir: root,
  entryPoints: ['lib/index.ts'],
  outfile: 'dist/index.cjs',
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  logLevel: 'warning',
})
// One implementation for both: a bus or an adapter made by `require` is the one that `import` sees.
const names = Object.keys(createRequire(import.meta.url)(path.join(root, 'dist/index.cjs'))).sort()
writeFileSync(path.join(root, 'dist/index.mjs'), `import api from './index.cjs'\n\nexport const { ${names.join(', ')} } = api\n`)
