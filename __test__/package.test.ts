/** The package as it ships: packed, unpacked elsewhere, and loaded in both ways. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
let app: string
let files: string[]

beforeAll(async () => {
  app = await mkdtemp(join(tmpdir(), 'nvent-package-'))
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', app], { cwd: root })
  const [packed] = JSON.parse(stdout)
  files = packed.files.map((file: { path: string }) => file.path).sort()
  const target = join(app, 'node_modules/nvent-native')
  await mkdir(target, { recursive: true })
  await run('tar', ['-xzf', join(app, packed.filename), '-C', target, '--strip-components', '1'])
})
afterAll(() => rm(app, { recursive: true, force: true }))

/** Runs a script in the app, and reads the JSON that it prints. */
async function inApp(name: string, source: string): Promise<any> {
  await writeFile(join(app, name), source)
  return JSON.parse((await run(process.execPath, [name], { cwd: app })).stdout)
}

it('ships what is needed to run, and no sources', () => {
  const addon = `nvent-native.${process.platform}-${process.arch}.node`
  expect(files).toEqual(expect.arrayContaining([addon, 'LICENSE', 'dist/index.cjs', 'dist/index.mjs', 'index.d.ts', 'package.json']))
  const expected = /^(dist\/.*\.(cjs|mjs|js|d\.ts)|nvent-native\.[\w-]+\.node|index\.d\.ts|package\.json|LICENSE|README\.md|CHANGELOG\.md)$/
  expect(files.filter(file => !expected.test(file))).toEqual([])
})

it('runs no script where it is installed', async () => {
  const { scripts, dependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  expect(Object.keys(scripts)).not.toEqual(expect.arrayContaining([expect.stringMatching(/^(pre|post)?install$/)]))
  expect(dependencies).toBeUndefined()
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

it('says what is missing where there is no binary for the machine', async () => {
  const bare = join(app, 'bare')
  await mkdir(bare)
  await run('cp', ['-r', join(app, 'node_modules/nvent-native/dist'), bare])
  const failure = await run(process.execPath, [join(bare, 'dist/index.cjs')], { cwd: bare }).catch(error => error)
  expect(failure.stderr).toContain(`no binary for ${process.platform}-${process.arch}`)
  expect(failure.stderr).toContain('npm run build')
})
