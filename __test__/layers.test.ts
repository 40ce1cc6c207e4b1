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
  ['error', 'sync', 'time', 'health', 'metrics', 'topic', 'name', 'json', 'event', 'op', 'panic', 'wake', 'disk', 'fanout', 'backoff', 'latch', 'tls'],
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

/** The paths that a `use` tree names: `a::{b, c::d}` is `a::b` and `a::c::d`. */
function paths(tree: string, prefix: string[] = []): string[][] {
  const [, head, inner] = /^((?:\w+::)*)\{(.*)\}$/s.exec(tree) ?? []
  if (inner === undefined) return [[...prefix, ...tree.replace(/ as \w+$/, '').split('::')]]
  const parts: string[] = ['']
  let depth = 0
  for (const char of inner) {
    depth += Number(char === '{') - Number(char === '}')
    if (char === ',' && depth === 0) parts.push('')
    else parts[parts.length - 1] += char
  }
  const path = [...prefix, ...head!.split('::').filter(Boolean)]
  return parts.map(part => part.trim()).filter(Boolean).flatMap(part => paths(part, path))
}

/** The files of the crate as modules, and which others each imports. A folder and its files count as one. */
function importedModules(): Map<string, string[]> {
  const files = new Map(sources('src', '.rs').map(file => [file.split(/[\\/]/).slice(1).join('::').replace(/(::mod)?\.rs$/, ''), file]))
  return new Map([...files].map(([module, file]) => {
    const own = module.split('::')
    const code = read(file).split('#[cfg(test)]\nmod ')[0]!.replace(/\/\/.*/g, '')
    const trees = [...code.matchAll(/\buse\s+([^;]+);/g)].map(([, tree]) => tree!.replace(/\s+/g, ' ').trim())
    const inline = [...code.matchAll(/\b(?:crate|super)(?:::\w+)+/g)].map(([path]) => path)
    const named = [...trees.flatMap(tree => paths(tree)), ...inline.flatMap(path => paths(path))].map(([first, ...rest]) => {
      if (first === 'crate') return rest
      const base = [...own]
      for (; first === 'super'; first = rest.shift()) base.pop()
      return [...base, ...(first && first !== 'self' ? [first] : []), ...rest]
    })
    const others = named.map((path) => {
      while (path.length > 0 && !files.has(path.join('::'))) path.pop()
      return path.join('::')
    })
    const related = (other: string): boolean => `${module}::`.startsWith(`${other}::`) || other.startsWith(`${module}::`)
    return [module, [...new Set(others)].filter(other => other && !related(other))]
  }))
}

it('no files of the core import each other in a circle', () => {
  const graph = importedModules()
  expect(graph.size).toBeGreaterThan(150)
  // What is left after removing, again and again, what imports nothing that is left.
  for (let before = 0; before !== graph.size;) {
    before = graph.size
    for (const [module, others] of graph) if (!others.some(other => graph.has(other))) graph.delete(module)
  }
  // And what nothing that is left imports.
  for (let before = 0; before !== graph.size;) {
    before = graph.size
    for (const module of graph.keys()) if (![...graph.values()].some(others => others.includes(module))) graph.delete(module)
  }
  expect([...graph].map(([module, others]) => `${module} imports ${others.filter(other => graph.has(other)).join(', ')}`)).toEqual([])
})

it('only the boundary names napi', () => {
  const named = sources('src', '.rs').filter(file => /\bnapi(_derive)?(::|\()/.test(read(file).replace(/\/\/.*/g, '')))
  expect(named.filter(file => !file.startsWith(join('src', 'node')))).toEqual([])
})

it('the TypeScript face does not import the Nuxt module', () => {
  expect(sources('lib', '.ts').filter(file => /from '\.\.\/(nuxt|__test__|examples)/.test(read(file)))).toEqual([])
})

it('the Nuxt module imports of the TypeScript face only its public names, the tables of options and the escape of globs', () => {
  const imported = sources('nuxt', '.ts').flatMap(file => [...read(file).matchAll(/from '((?:\.\.\/)+lib\/[^']+)'/g)].map(([, name]) => `${file}: ${name}`))
  expect(imported.length).toBeGreaterThan(0)
  expect(imported.filter(name => !/ (\.\.\/)+lib\/(options\/|glob\.js$)/.test(name))).toEqual([])
})

it('the page of the inspector imports nothing of this repository but itself', () => {
  const files = [...sources('inspector', '.ts'), ...sources('inspector', '.vue')]
  expect(files.length).toBeGreaterThan(5)
  const imported = files.flatMap(file => [...read(file).matchAll(/ from '([^']+)'/g)].map(([, name]) => name!))
  expect(imported.filter(name => !/^(vue$|@tanstack\/|\.\.?\/)/.test(name) || /\.\.\/(lib|nuxt|dist)\//.test(name))).toEqual([])
})
