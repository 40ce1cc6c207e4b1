/** Writes index.d.ts and index.d.cts, its twin for `require`, from lib. `--check` writes nothing and fails where it differs. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'
import { root } from './shared.mjs'

process.chdir(root)
const bundle = await rollup({ input: 'lib/index.ts', plugins: [dts({ compilerOptions: { stripInternal: true } })], external: /^node:/ })
const { output } = await bundle.generate({ format: 'es' })
const types = `// Generated from lib by \`npm run types\`.\n\n${output[0].code}`

const stale = ['index.d.ts', 'index.d.cts'].filter((file) => {
  if (!process.argv.includes('--check')) writeFileSync(file, types)
  return !existsSync(file) || readFileSync(file, 'utf8') !== types
})
if (stale.length > 0) {
  console.error(`${stale.join(' and ')} is not what lib declares: run \`npm run types\` and commit the result`)
  process.exit(1)
}
