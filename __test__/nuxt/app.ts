/**
 * Nuxt apps as users have them: the package is installed from its tarball, the app is built by `nuxi build`, and the
 * output is moved to another folder and started there.
 */
import { spawn, execFile, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify, stripVTControlCharacters } from 'node:util'

const run = promisify(execFile)
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FIXTURES = fileURLToPath(new URL('./fixtures/', import.meta.url))
const ENV = { ...process.env, NUXT_TELEMETRY_DISABLED: '1', NODE_ENV: undefined, TEST: undefined, VITEST: undefined, CI: undefined }

/** Where built apps are kept, if anywhere: `scripts/mutate.mjs` starts the same one again and again. */
const KEPT = process.env['NVENT_TEST_BUILDS']

export interface Options {
  /** The contents of nuxt.config. */
  config?: string
  /** Folders of fixtures to install as packages, by name. */
  packages?: Record<string, string>
}

export class App {
  /** `key` names what the app is made of. */
  private constructor(readonly dir: string, private readonly key: string) {}

  /** `source` is a folder of fixtures, or an absolute path. */
  static async create(source: string, { config, packages = {} }: Options = {}): Promise<App> {
    const dir = await mkdtemp(join(tmpdir(), 'nvent-app-'))
    await cp(join(source.startsWith('/') ? '' : FIXTURES, source), dir, {
      recursive: true,
      filter: path => !/[\\/](node_modules|\.nuxt|\.output|\.data)$/.test(path),
    })
    await writeFile(join(dir, 'package.json'), JSON.stringify({ name: 'app', private: true, type: 'module' }))
    if (config) await writeFile(join(dir, 'nuxt.config.ts'), `export default defineNuxtConfig(${config})\n`)

    const modules = join(dir, 'node_modules')
    await mkdir(modules)
    for (const name of await readdir(join(ROOT, 'node_modules'))) {
      if (!name.startsWith('nvent') && name !== '.cache') await symlink(join(ROOT, 'node_modules', name), join(modules, name))
    }
    await installPackage(modules)
    for (const [name, folder] of Object.entries(packages)) await cp(join(FIXTURES, folder), join(modules, name), { recursive: true })
    return new App(dir, createHash('sha256').update(JSON.stringify([source, config, packages])).digest('hex'))
  }

  nuxi(...args: string[]) {
    return run(process.execPath, [join(ROOT, 'node_modules/nuxt/bin/nuxt.mjs'), ...args], { cwd: this.dir, env: ENV, maxBuffer: 1e8 })
  }

  /** Builds the app and moves the output to another folder, so that it can use only what it contains. */
  async build(): Promise<Built> {
    const home = await mkdtemp(join(tmpdir(), 'nvent-built-'))
    const kept = KEPT && join(KEPT, this.key)
    if (kept && existsSync(kept)) await cp(kept, join(home, 'app'), { recursive: true, verbatimSymlinks: true })
    else {
      await this.nuxi('build')
      await rename(join(this.dir, '.output'), join(home, 'app'))
      if (kept) await cp(join(home, 'app'), kept, { recursive: true, verbatimSymlinks: true })
    }
    return new Built(home)
  }

  /** `nuxi dev`, ready when it answers. */
  async dev(env: Record<string, string> = {}): Promise<Server> {
    const args = [join(ROOT, 'node_modules/nuxt/bin/nuxt.mjs'), 'dev', '--no-fork', '--port', '0', '--host', '127.0.0.1']
    return Server.start(args, this.dir, env, /(http:\/\/127\.0\.0\.1:\d+)/)
  }

  remove = () => rm(this.dir, { recursive: true, force: true })
}

/** A built app, and the folder in which it runs and keeps its data. */
export class Built {
  constructor(readonly home: string) {}

  start = (env: Record<string, string> = {}) =>
    Server.start([join('app', 'server', 'index.mjs')], this.home, { HOST: '127.0.0.1', PORT: '0', ...env }, /Listening on (http:\S+)/)

  remove = () => rm(this.home, { recursive: true, force: true })
}

export class Server {
  private constructor(readonly url: string, private readonly child: ChildProcess, private readonly lines: string[]) {}

  static async start(args: string[], cwd: string, env: Record<string, string>, ready: RegExp): Promise<Server> {
    const child = spawn(process.execPath, args, { cwd, env: { ...ENV, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    const lines: string[] = []
    const url = await new Promise<string>((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) {
        createInterface(stream).on('line', (line) => {
          lines.push(line)
          const found = ready.exec(stripVTControlCharacters(line))
          if (found) resolve(found[1]!)
        })
      }
      child.once('exit', code => reject(new Error(`exited with ${code} before it was ready:\n${lines.join('\n')}`)))
    })
    return new Server(url, child, lines)
  }

  get pid() { return this.child.pid! }
  get output() { return this.lines.join('\n') }
  get port() { return new URL(this.url).port }

  async get<T = any>(path: string, { body, withinMs = 30_000 }: { body?: unknown, withinMs?: number } = {}): Promise<T> {
    const response = await fetch(new URL(path, this.url), {
      signal: AbortSignal.timeout(withinMs),
      ...body === undefined ? {} : { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } },
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}\n${this.output}`)
    return (text ? JSON.parse(text) : undefined) as T
  }

  post = <T = any>(path: string, body: unknown) => this.get<T>(path, { body })

  /** Ends the process and returns its exit code; null after SIGKILL. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.child.exitCode !== null) return this.child.exitCode
    const gone = new Promise<number | null>(resolve => this.child.once('exit', resolve))
    this.child.kill(signal)
    return gone
  }
}

/** Polls until `found` returns a value. */
export async function eventually<T>(found: () => Promise<T | undefined | false>, what: string, withinMs = 30_000): Promise<T> {
  const end = Date.now() + withinMs
  for (;;) {
    const value = await found()
    if (value !== undefined && value !== false) return value
    if (Date.now() > end) throw new Error(`never saw ${what}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** Installs the root package and the one of this platform, as a release has them. */
async function installPackage(modules: string) {
  const { pack, stage } = await import(new URL('../../scripts/pack.mjs', import.meta.url).href)
  const scratch = await mkdtemp(join(tmpdir(), 'nvent-pack-'))
  for (const { name, path } of pack(stage(join(scratch, 'staged')), scratch)) {
    const target = join(modules, name)
    await mkdir(target)
    await run('tar', ['-xzf', path, '-C', target, '--strip-components', '1'])
  }
  await rm(scratch, { recursive: true })
}
