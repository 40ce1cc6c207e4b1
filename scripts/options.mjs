/**
 * Writes the tables of docs/options.md: what nuxt/schema.ts allows and the options of calls, with the documentation of their
 * types. `--check` writes nothing and fails where it differs, or where an option has no documentation.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import ts from 'typescript'
import { root } from './shared.mjs'

process.chdir(root)
const { isLeaf, moduleSchema, nventSchema } = await import('../dist/nuxt/schema.js')
const FILE = 'docs/options.md'
const PLACE = /(<!-- options -->\n).*(<!-- \/options -->)/s

/** Older names of other options. */
const OLDER = ['store.connection', 'stream.connection']
/** Options of calls and constructors, which are not in a configuration. */
const CALLS = {
  'Job': 'JobOptions',
  'Worker': 'WorkerOptions',
  'Subscription to a stream': 'SubscribeOptions',
  'Durable consumer': 'ConsumeOptions',
  'Memory stream (constructor)': 'MemoryStreamOptions',
  'Step of a flow': 'StepOptions',
}

const program = ts.createProgram(['nuxt/options.ts', 'lib/types/index.ts'], { ...ts.parseConfigFileTextToJson('', '{}').config, strict: true, moduleResolution: ts.ModuleResolutionKind.Bundler, module: ts.ModuleKind.ESNext, skipLibCheck: true, types: ['node'] })
const checker = program.getTypeChecker()
const undocumented = []

/** Returns the type of an exported interface. */
function typeOf(file, name) {
  const module = checker.getSymbolAtLocation(program.getSourceFile(file))
  const symbol = checker.getExportsOfModule(module).find(symbol => symbol.name === name)
  return checker.getDeclaredTypeOfSymbol(symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol)
}

/** Returns the property of a type, wherever in a union it is. */
function property(type, name) {
  const parts = type.isUnion() ? type.types : [type]
  return parts.map(part => checker.getPropertyOfType(part, name)).find(Boolean)
}

const inner = symbol => checker.getNonNullableType(checker.getTypeOfSymbol(symbol))
const oneLine = text => text.replace(/\s+/g, ' ').trim().replaceAll('|', '\\|')

/** The documentation of a property. A link to another stands for that one's. */
function documentation(symbol, path) {
  const text = oneLine(ts.displayPartsToString(symbol.getDocumentationComment(checker)).replace(/\{@link ([\w.]+)\}/g, '`$1`'))
  const byDefault = symbol.getJsDocTags(checker).find(({ name }) => name === 'default')
  const link = /^`(\w+)\.(\w+)`\.?$/.exec(text)
  if (link) return documentation(property(typeOf('lib/types/index.ts', link[1]), link[2]), path)
  if (text === '') undocumented.push(path)
  return byDefault ? `${text} Default ${oneLine(ts.displayPartsToString(byDefault.text)).replaceAll('\'', '`')}.` : text
}

const variable = path => path.map(part => part.replace(/([a-z])([A-Z])/g, '$1_$2').toUpperCase()).join('_')

function values({ kinds, rule: { values, min, max } }) {
  if (values) return values.map(value => `\`${value}\``).join(', ')
  if (kinds.includes('number') && (min > 0 || max < Number.MAX_SAFE_INTEGER)) return `number from ${min}${max < Number.MAX_SAFE_INTEGER ? ` to ${max}` : ''}`
  return kinds.map(kind => kind === 'any' ? 'see the types' : kind).join(' or ')
}

/** One row for each leaf of a section. */
function rows(schema, type, section, path = []) {
  return Object.entries(schema).flatMap(([name, part]) => {
    const at = [...path, name]
    if (OLDER.includes(at.join('.'))) return []
    const symbol = property(type, name)
    if (!isLeaf(part)) return rows(part, inner(symbol), section, at)
    return [`| \`${at.join('.')}\` | ${values(part)} | ${documentation(symbol, [section, ...at].join('.'))} | \`NUXT_${variable([section, ...at])}\` |`]
  })
}

/** One row for each property, and for those of an object with documented ones. */
function callRows(type, name, path = []) {
  return type.getProperties().flatMap((symbol) => {
    const at = [...path, symbol.name]
    const text = documentation(symbol, `${name}.${at.join('.')}`)
    const shown = checker.typeToString(checker.getTypeOfSymbol(symbol), undefined, ts.TypeFormatFlags.NoTruncation | ts.TypeFormatFlags.InTypeAlias)
      .replace(/^(.*) \| undefined$/, '$1').replaceAll('"', '\'')
    return [`| \`${at.join('.')}\` | ${shown.length > 80 ? 'see the types' : `\`${oneLine(shown)}\``} | ${text} |`]
  })
}

const sections = [
  ['`nvent` in nuxt.config, and `createAdapters`', 'The adapters\' sections are also what `createAdapters` takes; `wiring` is what `createWiringRegistry` takes.', nventSchema, typeOf('nuxt/options.ts', 'NventSection'), 'nvent'],
  ['`nventNative` in nuxt.config', 'What nvent\'s own section has no word for.', moduleSchema, typeOf('nuxt/options.ts', 'ModuleOptions'), 'nventNative'],
]
const out = sections.flatMap(([title, intro, schema, type, section]) => [
  `## ${title}`, '', intro, '', '| option | values | meaning | variable |', '|---|---|---|---|', ...rows(schema, type, section), '',
])
for (const [title, name] of Object.entries(CALLS)) {
  out.push(`## ${title}: \`${name}\``, '', '| option | type | meaning |', '|---|---|---|', ...callRows(typeOf('lib/types/index.ts', name), name), '')
}

if (undocumented.length > 0) {
  console.error(`options without documentation in their type: ${undocumented.join(', ')}`)
  process.exit(1)
}
const current = readFileSync(FILE, 'utf8')
const written = current.replace(PLACE, (_, begin, end) => `${begin}\n${out.join('\n')}\n${end}`)
if (!process.argv.includes('--check')) writeFileSync(FILE, written)
else if (written !== current) {
  console.error(`${FILE} is not what the options are: run \`npm run options\` and commit the result`)
  process.exit(1)
}
