/** Who may import whom, as ARCHITECTURE.md says: every arrow points down. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const sources = (dir: string, ending: string): string[] => readdirSync(join(root, dir), { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith(ending) && !file.includes('node_modules'))
  .map(file => join(dir, file))
const read = (file: string): string => readFileSync(join(root, file), 'utf8')

const LAYERS = [
  ['error', 'sync', 'time', 'health', 'metrics', 'topic', 'name', 'json', 'event', 'op', 'wake', 'disk', 'fanout', 'backoff', 'latch', 'tls'],
  ['redis', 'http'],
  ['store', 'stream', 'queue', 'bus'],
  ['wiring'],
  ['node'],
]
/** Modules of this layer may import each other. The others may not. */
const GROUND = 0
const layerOf = (module: string): number => LAYERS.findIndex(layer => layer.includes(module))

/** The modules of the crate that a file imports, tests left out. */
function imports(source: string): string[] {
  const code = source.split('#[cfg(test)]\nmod ')[0]!.replace(/\/\/.*/g, '')
  const found = new Set<string>()
  for (const [, group, single] of code.matchAll(/\bcrate::(?:\{([^}]*)\}|([a-z]\w*))/g)) {
    if (single) found.add(single)
    else for (const [, name] of group!.matchAll(/(?:^|[,\s])([a-z]\w*)/g)) found.add(name!)
  }
  return [...found]
}

it('every module of the core has a layer', () => {
  const modules = [...read('src/lib.rs').matchAll(/^(?:pub )?mod (\w+);/gm)].map(([, name]) => name!)
  expect(modules.filter(name => layerOf(name) < 0)).toEqual([])
})

it('modules of the core import only layers below their own', () => {
  const wrong: string[] = []
  for (const file of sources('src', '.rs').filter(file => file !== join('src', 'lib.rs'))) {
    const module = file.split(/[\\/]/)[1]!.replace('.rs', '')
    for (const other of imports(read(file))) {
      const [from, to] = [layerOf(module), layerOf(other)]
      const allowed = other === module || to < from || (from === GROUND && to === GROUND)
      if (!allowed) wrong.push(`${file} imports crate::${other}`)
    }
  }
  expect(wrong).toEqual([])
})

it('only the boundary names napi', () => {
  const named = sources('src', '.rs').filter(file => /\bnapi(_derive)?(::|\()/.test(read(file).replace(/\/\/.*/g, '')))
  expect(named.filter(file => !file.startsWith(join('src', 'node')))).toEqual([])
})

it('the TypeScript face does not import the Nuxt module', () => {
  expect(sources('lib', '.ts').filter(file => /from '\.\.\/(nuxt|__test__|examples)/.test(read(file)))).toEqual([])
})

it('the page of the inspector imports nothing of this repository but itself', () => {
  const files = [...sources('inspector', '.ts'), ...sources('inspector', '.vue')]
  expect(files.length).toBeGreaterThan(5)
  const imported = files.flatMap(file => [...read(file).matchAll(/ from '([^']+)'/g)].map(([, name]) => name!))
  expect(imported.filter(name => !/^(vue$|@tanstack\/|\.\.?\/)/.test(name) || /\.\.\/(lib|nuxt|dist)\//.test(name))).toEqual([])
})
