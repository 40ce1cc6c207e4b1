/** Fresh Nuxt apps that add the package as its users do: built, started, killed and started again, without Rust on the PATH. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { npm } from './registry.mjs'

/** The versions that are tried, and on what. */
export const NUXT_APPS = [
  { name: 'Nuxt 4.4.5', version: '4.4.5', runtimes: ['Node 20.19'], otherwise: 'one Node is enough' },
  { name: 'newest Nuxt', version: 'latest', runtimes: ['Node 22', 'Node 24'], otherwise: 'it needs Node 22' },
]

const FILES = {
  'package.json': JSON.stringify({ private: true, type: 'module' }),
  'nuxt.config.ts': `export default defineNuxtConfig({ telemetry: false, compatibilityDate: '2026-01-01' })\n`,
  'app.vue': '<template><p>visits</p></template>\n',
  'server/api/visits.ts': `export default defineEventHandler(async (event) => {
  const store = useStoreAdapter()
  if (event.method === 'POST') await store.append('visits', { type: 'visit', data: { at: Date.now() } })
  return (await store.read('visits')).length
})\n`,
}

/** Runs an app on a Node; rejects where anything is not as it should be. */
export async function runNuxt({ version }, node, registry) {
  const dir = mkdtempSync(join(tmpdir(), 'nvent-nuxt-'))
  try {
    const app = join(dir, 'app')
    for (const [file, text] of Object.entries(FILES)) {
      mkdirSync(join(app, file, '..'), { recursive: true })
      writeFileSync(join(app, file), text)
    }
    npm(['install', `nuxt@${version}`, '--ignore-scripts', '--no-audit', '--no-fund'], app)
    // As the README has it: `npx nuxt module add nvent-native`.
    writeFileSync(join(app, '.npmrc'), `registry=${registry.url}\n`)
    nuxt(node, app, ['module', 'add', 'nvent-native'], { ...process.env, NUXT_TELEMETRY_DISABLED: '1' })
    const config = readFileSync(join(app, 'nuxt.config.ts'), 'utf8')
    if (!/modules: \['nvent-native'\]/.test(config)) throw new Error(`nuxt module add left this behind:\n${config}`)
    // Nothing but Node is on the PATH: no cargo, no compiler.
    mkdirSync(join(dir, 'bin'))
    symlinkSync(node, join(dir, 'bin/node'))
    const env = { PATH: join(dir, 'bin'), HOME: dir, NUXT_TELEMETRY_DISABLED: '1', HOST: '127.0.0.1', PORT: '0' }
    nuxt(node, app, ['build'], env)
    // Elsewhere, so that the server has only what was built.
    renameSync(join(app, '.output'), join(dir, 'built'))
    rmSync(app, { recursive: true })
    for (const [visits, signal] of [[1, 'SIGKILL'], [2, 'SIGTERM']]) {
      const server = await start(node, dir, env)
      const page = await fetch(server.url).then(response => response.text())
      const found = await fetch(new URL('/api/visits', server.url), { method: 'POST' }).then(response => response.text())
      const code = await server.stop(signal)
      if (!page.includes('<p>visits</p>')) throw new Error(`the page is ${page}`)
      if (found !== String(visits)) throw new Error(`after ${visits} visits the store has ${found}\n${server.output()}`)
      if (signal === 'SIGTERM' && code !== 0) throw new Error(`the server ended with ${code}\n${server.output()}`)
    }
  }
  finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function nuxt(node, cwd, args, env) {
  const { status, stdout, stderr } = spawnSync(node, ['node_modules/nuxt/bin/nuxt.mjs', ...args], { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  if (status !== 0) throw new Error(`nuxt ${args.join(' ')}:\n${stdout}${stderr}`)
}

async function start(node, cwd, env) {
  const child = spawn(node, ['built/server/index.mjs'], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise(resolve => child.once('exit', resolve))
  const lines = []
  const url = await new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on('line', (line) => {
        lines.push(line)
        const [found] = /http:\/\/\S+/.exec(line) ?? []
        if (found) resolve(found)
      })
    }
    void ended.then(code => reject(new Error(`the server ended with ${code}:\n${lines.join('\n')}`)))
  })
  return { url, output: () => lines.join('\n'), stop: (signal) => { child.kill(signal); return ended } }
}
