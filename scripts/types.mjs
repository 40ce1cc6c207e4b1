/**
 * Writes what is generated: index.d.ts and index.d.cts, its twin for `require`, from lib, and lib/native/binding.d.ts, what
 * the addon exports, from the last build of it. `--check` writes nothing and fails where a file differs.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'
import { bindingTypes, root } from './shared.mjs'

process.chdir(root)
const isCheck = process.argv.includes('--check')
const binding = await bindingOf()
const stale = binding === undefined ? [] : write(['lib/native/binding.d.ts'], binding)

const bundle = await rollup({ input: 'lib/index.ts', plugins: [dts({ compilerOptions: { stripInternal: true } })], external: /^node:/ })
const { output } = await bundle.generate({ format: 'es' })
stale.push(...write(['index.d.ts', 'index.d.cts'], `// Generated from lib by \`npm run types\`.\n\n${output[0].code}`))

if (stale.length > 0) {
  console.error(`${stale.join(' and ')}: not what the sources declare: run \`npm run types\` and commit the result`)
  process.exit(1)
}

/** Writes the files, or returns those that differ. */
function write(files, text) {
  return files.filter((file) => {
    if (!isCheck) writeFileSync(file, text)
    return !existsSync(file) || readFileSync(file, 'utf8') !== text
  })
}

/** Returns the declarations of the addon, as its last build left them: nothing where the boundary has changed since. */
async function bindingOf() {
  const time = file => statSync(file).mtimeMs
  const built = ['release', 'debug'].map(profile => bindingTypes(profile)).filter(({ file }) => existsSync(file))
    .sort((a, b) => time(b.file) - time(a.file))[0]
  const sources = readdirSync('src/node', { recursive: true }).filter(name => name.endsWith('.rs')).map(name => join('src/node', name))
  if (built === undefined || sources.some(source => time(source) > time(built.file))) {
    console.error('lib/native/binding.d.ts: build the addon first (`npm run build:debug`); left as it is')
    if (isCheck) process.exit(1)
    return
  }
  const { generateTypeDef } = await import('@napi-rs/cli')
  const header = [
    '// Generated from src/node by `npm run types`.', '',
    '/** JSON text, null for nothing, or the id of an operation that completes later. Text with a space before it: something was delivered. */',
    'export type Reply = string | number | null', '', '',
  ].join('\n')
  return (await generateTypeDef({ typeDefDir: built.dir, cwd: root, dtsHeader: header })).dts
}
