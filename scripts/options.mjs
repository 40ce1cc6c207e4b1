/**
 * Writes the tables of docs/options.md: what lib/options and nuxt/schema.ts allow and the options of calls, with the documentation
 * of their types. `--check` writes nothing and fails where it differs. Both fail where an option has no documentation, or where
 * that has another default than the table.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import ts from 'typescript'
import { root } from './shared.mjs'

process.chdir(root)
const { moduleSchema, nventSchema } = await import('../dist/nuxt/schema.js')
const { variablesOf, isBuilt } = await import('../dist/nuxt/runtime/environment.js')
const { isOption, optionsOf } = await import('../dist/lib/options/schema.js')
const { expected } = await import('../dist/lib/options/check.js')
const FILE = 'docs/options.md'
const PLACE = /(<!-- options -->\n).*(<!-- \/options -->)/s

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
const wrong = []

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

/** Returns the documentation of a property. A link to another stands for that one's. */
function documentation(symbol, path) {
  const text = oneLine(ts.displayPartsToString(symbol.getDocumentationComment(checker)).replace(/\{@link ([\w.]+)\}/g, '`$1`'))
  const byDefault = symbol.getJsDocTags(checker).find(({ name }) => name === 'default')
  const link = /^`(\w+)\.(\w+)`\.?$/.exec(text)
  if (link) return documentation(property(typeOf('lib/types/index.ts', link[1]), link[2]), path)
  if (text === '') wrong.push(`${path} has no documentation in its type`)
  return byDefault ? `${text} Default ${oneLine(ts.displayPartsToString(byDefault.text)).replaceAll('\'', '`')}.` : text
}

const ONLY = { memory: 'In memory only.', file: 'Files only.', redis: 'Redis only.' }

/** Returns what an option means: its documentation, the default of the table, and the backends, where the path does not say so. */
function meaning({ rule }, symbol, path) {
  let text = documentation(symbol, path)
  const { default: byDefault, backends = [] } = rule
  if (byDefault !== undefined) {
    const [, documented] = /\bDefault:? `?([^`.,; ]+)/.exec(text) ?? []
    if (documented === undefined) text += ` Default \`${byDefault}\`.`
    else if (documented.replaceAll(',', '') !== String(byDefault)) wrong.push(`${path} has the default ${byDefault}, and ${documented} in its documentation`)
  }
  const only = backends.length === 1 && !path.split('.').includes(backends[0]) ? ` ${ONLY[backends[0]]}` : ''
  return text + only
}

const values = option => oneLine(option.kind === 'any' ? 'see the types' : option.rule.values ? option.rule.values.map(value => `\`${value}\``).join(', ') : expected(option).replace(/^an? /, '').replace(/ to \d{10,}/, ''))

/** Returns one row for each option of a section that can be set by itself. */
function rows(schema, type, section, path = []) {
  return Object.entries(schema).flatMap(([name, node]) => {
    const at = [...path, name]
    if (isOption(node) && node.rule.alias) return []
    const symbol = property(type, name)
    const options = optionsOf(node)
    const within = options ? rows(options, inner(symbol), section, at) : []
    if (!isOption(node) || node.kind === 'group') return within
    const [variable] = [...variablesOf({ [name]: node }, [section, ...path].join('.')).keys()].slice(1)
    const shown = isBuilt(node) ? 'none: read by the build' : `\`NUXT_${variable.replaceAll('.', '_')}\``
    return [`| \`${at.join('.')}\` | ${values(node)} | ${meaning(node, symbol, [section, ...at].join('.'))} | ${shown} |`, ...within]
  })
}

/** Returns one row for each property, and for those of an object with documented ones. */
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

if (wrong.length > 0) {
  console.error(wrong.join('\n'))
  process.exit(1)
}
const current = readFileSync(FILE, 'utf8')
const written = current.replace(PLACE, (_, begin, end) => `${begin}\n${out.join('\n')}\n${end}`)
if (!process.argv.includes('--check')) writeFileSync(FILE, written)
else if (written !== current) {
  console.error(`${FILE} is not what the options are: run \`npm run options\` and commit the result`)
  process.exit(1)
}
