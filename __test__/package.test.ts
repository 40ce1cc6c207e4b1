/** The packages as they ship: packed, unpacked elsewhere, loaded in every way, and what a broken installation says. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
const bin = (path: string): string => join(root, 'node_modules', path)
const { pack, registryReadme, sizeProblem, stage, targets } = await import(new URL('../scripts/pack.mjs', import.meta.url).href)
const { foreignSymbols } = await import(new URL('../scripts/release/links.mjs', import.meta.url).href)
const { target } = await import(new URL('../scripts/shared.mjs', import.meta.url).href)
let app: string
let staged: string
let tarball: { path: string, unpackedSize: number, files: Array<{ path: string }> }

beforeAll(async () => {
  app = await mkdtemp(join(tmpdir(), 'nvent-package-'))
  const dirs: string[] = stage(join(app, 'staged'))
  staged = dirs.at(-1)!
  const packed = pack(dirs, app)
  tarball = packed.at(-1)
  for (const { name, path } of packed) {
    const to = join(app, 'node_modules', name)
    await mkdir(to, { recursive: true })
    await run('tar', ['-xzf', path, '-C', to, '--strip-components', '1'])
  }
})
afterAll(() => rm(app, { recursive: true, force: true }))

/** Runs a script in the app, and reads the JSON that it prints. */
async function inApp(name: string, source: string): Promise<any> {
  await writeFile(join(app, name), source)
  return JSON.parse((await run(process.execPath, [name], { cwd: app })).stdout)
}
const manifest = async (name: string): Promise<any> => JSON.parse(await readFile(join(app, 'node_modules', name, 'package.json'), 'utf8'))

it('ships what is needed to run, and no sources', () => {
  const files = tarball.files.map(({ path }) => path)
  expect(files).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'THIRD-PARTY-NOTICES.md', 'sbom.cdx.json', 'dist/index.cjs', 'dist/index.mjs', 'index.d.cts', 'index.d.ts']))
  const expected = /^(dist\/.*\.(cjs|mjs|js|d\.ts|json|vue|css)|(bin|examples)\/[\w-]+\.mjs|index\.d\.c?ts|package\.json|sbom\.cdx\.json|LICENSE|(README|CHANGELOG|THIRD-PARTY-NOTICES)\.md)$/
  expect(files.filter(file => !expected.test(file))).toEqual([])
})

it('has bounded sizes', async () => {
  expect(sizeProblem(tarball)).toBeUndefined()
  const addons = join(app, 'large')
  await mkdir(addons)
  await writeFile(join(addons, `nvent-native.${target}.node`), '')
  await truncate(join(addons, `nvent-native.${target}.node`), 20_000_000)
  const [platform] = pack(stage(join(addons, 'staged'), addons), addons)
  expect(sizeProblem(platform)).toMatch(new RegExp(`^nvent-native-${target} is 20\\d+ bytes unpacked, more than \\d+$`))
})

it('an addon for Linux that needs a newer glibc, or one for musl that needs glibc, is found', () => {
  const addon = (...versions: string[]): Buffer => Buffer.from(['', 'malloc', ...versions, ''].join('\0'))
  const found = (name: string, ...versions: string[]): string[] => foreignSymbols(addon(...versions), name)
  expect(found('linux-x64-gnu', 'GLIBC_2.2.5', 'GLIBC_2.17')).toEqual([])
  expect(found('linux-x64-gnu', 'GLIBC_2.17', 'GLIBC_2.28', 'GLIBC_3.0')).toEqual(['GLIBC_2.28', 'GLIBC_3.0'])
  expect(found('linux-arm64-musl', 'GLIBC_2.2.5')).toEqual(['GLIBC_2.2'])
})

it('runs nothing where it is installed, and brings one binary', async () => {
  const published = await manifest('nvent-native')
  expect(published).not.toHaveProperty('scripts')
  expect(published).not.toHaveProperty('dependencies')
  // Without it `nuxt module add` takes the package for no module.
  expect(Object.keys(published.devDependencies)).toEqual(['nuxt'])
  expect(published.optionalDependencies).toEqual(Object.fromEntries(targets().map((name: string) => [`nvent-native-${name}`, published.version])))
  const platform = await manifest(`nvent-native-${target}`)
  expect(platform).toMatchObject({ version: published.version, os: [process.platform], cpu: [process.arch] })
  expect(await readdir(join(app, 'node_modules', `nvent-native-${target}`))).toContain(`nvent-native.${target}.node`)
})

it('is distinguished by C library on Linux', async () => {
  const { platformManifest } = await import(new URL('../scripts/pack.mjs', import.meta.url).href)
  expect(platformManifest('linux-x64-musl')).toMatchObject({ os: ['linux'], cpu: ['x64'], libc: ['musl'] })
  expect(platformManifest('linux-arm64-gnu')).toMatchObject({ os: ['linux'], cpu: ['arm64'], libc: ['glibc'] })
  expect(platformManifest('darwin-arm64')).not.toHaveProperty('libc')
})

it('the loader has literal requires for every target', async () => {
  const source = await readFile(join(staged, 'dist/index.cjs'), 'utf8')
  for (const name of targets()) {
    expect(source).toContain(`require("../nvent-native.${name}.node")`)
    expect(source).toContain(`require("nvent-native-${name}")`)
  }
})

it('publint and attw find nothing', async () => {
  await run(process.execPath, [bin('publint/src/cli.js'), 'run', staged, '--strict'])
  // A Nuxt module is an ES module, and the oldest resolution does not know `exports`.
  await run(process.execPath, [bin('@arethetypeswrong/cli/dist/index.js'), tarball.path, '--profile', 'node16', '--exclude-entrypoints', './nuxt'])
})

it.each([
  ['Node16', 'Node16'], ['NodeNext', 'NodeNext'], ['ESNext', 'Bundler'],
])('the types serve module %s with resolution %s, from both kinds of module', async (module, moduleResolution) => {
  const events = `declare module 'nvent-native' { interface NventEvents { 'order.paid': { amount: number } } }`
  const use = `
    const { store } = await createAdapters({ store: { adapter: 'memory' } })
    const ids: string[] = (await store.read('s')).map(event => event.id)
    // @ts-expect-error -- subjects are text
    void store.read(1)
    const { data: { amount } } = await store.append('s', { type: 'order.paid', data: { amount: 5 } })
    const cents: number = amount * 100
    // @ts-expect-error -- amount is a number
    void store.append('s', { type: 'order.paid', data: { amount: '5' } })
    void cents
    void ids`
  await writeFile(join(app, 'esm.mts'), `import { createAdapters } from 'nvent-native'\n${events}\n${use}\n`)
  await writeFile(join(app, 'cjs.cts'), `import nvent = require('nvent-native')\n${events}\nasync function main() {\n  const { createAdapters } = nvent\n${use}\n}\nvoid main\n`)
  const files = module === 'ESNext' ? ['esm.mts'] : ['esm.mts', 'cjs.cts']
  const { stdout } = await run(process.execPath, [
    bin('typescript/bin/tsc'), '--noEmit', '--strict', '--target', 'ES2022', '--lib', 'ES2023,DOM,ESNext.Disposable', '--types', 'node',
    '--typeRoots', bin('@types'), '--module', module!, '--moduleResolution', moduleResolution!, ...files,
  ], { cwd: app }).catch(error => error)
  expect(stdout).toBe('')
})

it('is one and the same by import, by require, and under both names', async () => {
  expect(await inApp('same.mjs', `
    import { createRequire } from 'node:module'
    import * as imported from 'nvent-native'
    import * as native from 'nvent-native/native'
    const required = createRequire(import.meta.url)('nvent-native')
    const names = Object.keys(required)
    console.log(JSON.stringify({
      names: names.length > 0 && names.every(name => imported[name] === required[name] && native[name] === required[name]),
      others: Object.keys(imported).filter(name => !names.includes(name)),
      bus: imported.getEventBus() === required.getEventBus(),
    }))
  `)).toEqual({ names: true, others: [], bus: true })
})

it('two installed copies share a bus, on which every event keeps its own subject, from either to the other', async () => {
  for (const name of ['nvent-native', `nvent-native-${target}`]) {
    await cp(join(app, 'node_modules', name), join(app, 'node_modules/dependency/node_modules', name), { recursive: true })
  }
  await writeFile(join(app, 'node_modules/dependency/index.js'), `module.exports = require('nvent-native')`)
  const shared = await inApp('copies.cjs', `
    const copies = [require('nvent-native'), require('dependency')]
    const bus = copies[0].getEventBus()

    /** Appends to a store of one copy. Returns what a coordinator of another routes to a cache that is keyed by subject. */
    async function follow(from, to) {
      const store = new from.MemoryStoreAdapter({ bus })
      const stream = new to.MemoryStreamAdapter()
      const coordinator = to.createStreamCoordinator({ bus, stream, enableFlowEvents: false })
      await coordinator.start()
      const received = []
      const third = new Promise(resolve => void stream.subscribe('store-sync:append:*', ({ data: { subject, event } }, topic) => {
        received.push([topic, subject, event.runId ?? null])
        if (event.type === 'third') resolve()
      }))
      await store.append('orders', { type: 'first', runId: 'r1' })
      await store.append('orders', { type: 'second' })
      await store.append('nq:flow:r2', { type: 'third', runId: 'r1' })
      await third
      await coordinator.stop()
      await stream.shutdown()
      await store.close()
      return received
    }

    const keepAlive = setInterval(() => {}, 60_000)
    async function main() {
      const areTwo = copies[0].MemoryStoreAdapter !== copies[1].MemoryStoreAdapter
      console.log(JSON.stringify({ areTwo, isOneBus: bus === copies[1].getEventBus(), received: [await follow(...copies), await follow(...copies.toReversed())] }))
      clearInterval(keepAlive)
    }
    void main()
  `)
  const received = [['orders', 'r1'], ['orders', null], ['nq:flow:r2', 'r1']].map(([subject, runId]) => [`store-sync:append:${subject}`, subject, runId])
  expect(shared).toEqual({ areTwo: true, isOneBus: true, received: [received, received] })
})

it('describes its Nuxt module', async () => {
  const meta = JSON.parse(await readFile(join(app, 'node_modules/nvent-native/dist/nuxt/module.json'), 'utf8'))
  expect(meta).toMatchObject({ name: 'nvent-native', version: (await manifest('nvent-native')).version, configKey: 'nventNative', compatibility: { nuxt: expect.any(String) } })
})

it('works from a CommonJS script', async () => {
  expect(await inApp('works.cjs', `
    const { MemoryStoreAdapter } = require('nvent-native')
    const store = new MemoryStoreAdapter()
    store.append('s', { type: 'hello' }).then(() => store.read('s')).then(async (events) => {
      await store.close()
      console.log(JSON.stringify(events.map(event => event.type)))
    })
  `)).toEqual(['hello'])
})

it('has a demo', async () => {
  const { stdout } = await run(process.execPath, ['node_modules/nvent-native/bin/nvent-native.mjs', 'demo', '--memory'], { cwd: app })
  expect(stdout).toContain('flow.completed')
  const wrong = await run(process.execPath, ['node_modules/nvent-native/bin/nvent-native.mjs', 'dmeo'], { cwd: app }).catch(error => error)
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('there is no command "dmeo"') })
})

it('says which package is missing where optional dependencies were left out', async () => {
  const outside = await mkdtemp(join(tmpdir(), 'nvent-alone-'))
  await cp(join(app, 'node_modules/nvent-native'), join(outside, 'node_modules/nvent-native'), { recursive: true })
  const failed = async (): Promise<string> => (await run(process.execPath, ['node_modules/nvent-native/dist/index.cjs'], { cwd: outside }).catch(error => error)).stderr
  const message = await failed()
  expect(message).toContain(`The package nvent-native-${target} is not installed`)
  expect(message).toContain('--omit=optional')
  expect(message).not.toContain('Rust')
  // Installed on one system and copied to another, as from Debian into an image of Alpine.
  const other = `nvent-native-${targets().find((name: string) => name !== target && name.startsWith('linux'))}`
  await mkdir(join(outside, 'node_modules', other))
  expect(await failed()).toContain(`${other} is installed instead: node_modules is from another platform, or another C library`)
  await rm(outside, { recursive: true })
})

it('says that a bundled copy must be external, and a checkout built', async () => {
  const outside = await mkdtemp(join(tmpdir(), 'nvent-bundled-'))
  await cp(join(staged, 'dist/index.cjs'), join(outside, 'server/index.cjs'))
  const failed = async (): Promise<string> => (await run(process.execPath, ['server/index.cjs'], { cwd: outside }).catch(error => error)).stderr
  expect(await failed()).toContain('Mark `nvent-native` as external in your bundler')
  await writeFile(join(outside, 'Cargo.toml'), '')
  expect(await failed()).toContain('npm run build')
  await rm(outside, { recursive: true })
})

it('the page of the registry links to the repository', () => {
  const links = [...registryReadme().matchAll(/\]\(([^)]+)\)/g)].map(([, link]) => link!)
  expect(links.filter(link => !/^(https?:|#)/.test(link))).toEqual([])
})
