/** Runs the playground on this checkout, as a project that has the package installed. */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { addon, root, run } from './shared.mjs'

process.chdir(root)
// Installing builds as well.
if (!existsSync('node_modules/nuxt')) run('npm', ['ci'])
if (!existsSync(addon) || !existsSync('dist/nuxt')) run(process.execPath, ['scripts/build.mjs'])
const modules = join('playground', 'node_modules')
mkdirSync(modules, { recursive: true })
if (!existsSync(join(modules, 'nvent-native'))) symlinkSync(root, join(modules, 'nvent-native'), 'junction')
run(process.execPath, ['node_modules/nuxt/bin/nuxt.mjs', 'dev', 'playground'])
