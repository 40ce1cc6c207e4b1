/** Writes index.d.ts from lib. `--check` writes nothing and fails where it differs. */
import { readFileSync, writeFileSync } from 'node:fs'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'
import { root } from './shared.mjs'

process.chdir(root)
const bundle = await rollup({ input: 'lib/index.ts', plugins: [dts({ compilerOptions: { stripInternal: true } })], external: /^node:/ })
const { output } = await bundle.generate({ format: 'es' })
const types = `// Generated from lib by \`npm run types\`.\n\n${output[0].code}`

if (!process.argv.includes('--check')) writeFileSync('index.d.ts', types)
else if (readFileSync('index.d.ts', 'utf8') !== types) {
  console.error('index.d.ts is not what lib declares: run `npm run types` and commit the result')
  process.exit(1)
}
