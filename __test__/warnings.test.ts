import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createEventBus, MemoryStoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { runFile } from './support/process'
import { nextWarning, until } from './support/until'

it('what native code warns about arrives as a warning of the process, with its code, a few of a kind', async () => {
  const store = new MemoryStoreAdapter({ bus: createEventBus() })
  const warnings: any[] = []
  const onWarning = (warning: any): void => void (warning.code === 'NVENT_CONSUMER_PARKED' && warnings.push(warning))
  process.on('warning', onWarning)
  const consumer = await store.consume('c', () => { throw new Error('from the handler') }, { attempts: 1 })
  const first = nextWarning()
  for (let n = 0; n < 20; n++) await store.append(`s${n}`, { type: 'a' })
  expect((await first).name).toBe('NventWarning')
  await until('all are parked', () => consumer.stats().parked === 20)
  await until('warnings arrive', () => warnings.length >= 5)
  expect(warnings).toHaveLength(5)
  expect(warnings[0].message).toMatch(/"s0".* from the handler/)
  process.off('warning', onWarning)
  await store.close()
})

it('NODE_DEBUG=nvent prints what opens and closes, a hundred lines in a second, and nothing is printed without it', async () => {
  const env = { ...process.env, NODE_DEBUG: '' }
  expect(await runFile('fixtures/prints-much.mjs', [], { env })).toMatchObject({ code: 0, stdout: '', stderr: '' })
  const { code, stderr } = await runFile('fixtures/prints-much.mjs', [], { env: { ...env, NODE_DEBUG: 'nvent' } })
  expect(code).toBe(0)
  const lines = stderr.trim().split('\n').map(line => line.replace(/^NVENT \d+: /, ''))
  expect(lines.slice(0, 2)).toEqual(['the memory store is open', 'the memory store is closed'])
  const omitted = lines.map(line => Number(/^(\d+) lines were left out/.exec(line)?.[1] ?? 0))
  const printed = lines.length - omitted.filter(count => count > 0).length
  expect(printed + omitted.reduce((sum, count) => sum + count, 0)).toBe(600)
  expect(printed).toBeLessThan(600)
})

it('docs/warnings.md lists every code that is warned about, and no other', () => {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const source = ['src', 'lib', 'nuxt'].flatMap(folder => readdirSync(`${root}/${folder}`, { recursive: true, encoding: 'utf8' }).map(file => `${root}/${folder}/${file}`))
    .filter(file => /\.(rs|ts)$/.test(file)).map(file => readFileSync(file, 'utf8')).join('\n')
  const warned = [
    /tracing::(?:warn|error)!\(\s*code = "(NVENT_\w+)"/g, /DEFAULT_CODE: &str = "(NVENT_\w+)"/g, /warn(?:Once|Limited)\('(NVENT_\w+)'/g, /type: 'NventWarning', code: '(NVENT_\w+)'/g,
  ].flatMap(pattern => [...source.matchAll(pattern)].map(([, code]) => code!))
  const listed = [...readFileSync(`${root}/docs/warnings.md`, 'utf8').matchAll(/^\| `(NVENT_\w+)` \|/gm)].map(([, code]) => code!)
  expect(listed).toEqual([...new Set(warned)].sort())
  // A warning without a code cannot be distinguished from another.
  expect(source.match(/tracing::(warn|error)!\((?![^;]*\bcode = )[^;]*;/g) ?? []).toEqual([])
})
