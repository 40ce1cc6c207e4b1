import { spawn } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { until } from './until'

export const BIN = fileURLToPath(new URL('../../bin/nvent-native.mjs', import.meta.url))
const SERVER = fileURLToPath(new URL('../fixtures/cli/server.mjs', import.meta.url))

const env = { ...process.env, NO_COLOR: undefined, FORCE_COLOR: undefined, NVENT_DIR: undefined, NVENT_REDIS: undefined, NODE_OPTIONS: undefined }

export interface Exit { code: number | null, stdout: string, stderr: string, rows: any[] }

/** A command at work. */
export class Running {
  stdout = ''
  stderr = ''
  readonly ended: Promise<number | null>

  constructor(readonly child: ChildProcessWithoutNullStreams) {
    child.stdout.setEncoding('utf8').on('data', text => this.stdout += text)
    child.stderr.setEncoding('utf8').on('data', text => this.stderr += text)
    this.ended = once(child, 'close').then(([code]) => code)
  }

  async prints(text: string): Promise<void> {
    await until(`${text} in ${this.stdout}`, () => this.stdout.includes(text), 30_000)
  }

  async exit(): Promise<Exit> {
    const code = await this.ended
    const rows = this.stdout.startsWith('{') ? this.stdout.trim().split('\n').map(line => JSON.parse(line)) : []
    return { code, stdout: this.stdout, stderr: this.stderr, rows }
  }
}

export const start = (args: string[], more: NodeJS.ProcessEnv = {}): Running => new Running(spawn(process.execPath, [BIN, ...args], { env: { ...env, ...more } }))

/** Runs the command to its end, with the content of a file on its standard input. */
export function nvent(args: string[], { input, env: more }: { input?: string, env?: NodeJS.ProcessEnv } = {}): Promise<Exit> {
  const running = start(args, more)
  if (input === undefined) running.child.stdin.end()
  else createReadStream(input).pipe(running.child.stdin)
  return running.exit()
}

/** Runs the command on a pseudo-terminal of so many columns. */
export function onTerminal(args: string[], columns: number, more: NodeJS.ProcessEnv = {}): Promise<Exit> {
  const words = [process.execPath, BIN, ...args].map(word => `'${word}'`).join(' ')
  const running = new Running(spawn('script', ['-qec', `stty cols ${columns}; exec ${words}`, '/dev/null'], { env: { ...env, TERM: 'xterm', ...more } }))
  running.child.stdin.end()
  return running.exit()
}

/** A server with data of every kind, which stays open. */
export async function serve(kind: 'file' | 'redis', where: string): Promise<{ server: Running, stop(): Promise<void> }> {
  const server = new Running(spawn(process.execPath, [SERVER, kind, where], { env }))
  void server.ended.then(() => server.stdout += '')
  await until(`the server is ready: ${server.stderr}`, () => {
    if (server.child.exitCode !== null) throw new Error(`the server ended: ${server.stderr}`)
    return server.stdout.includes('ready\n')
  }, 30_000)
  return {
    server,
    stop: async () => {
      server.child.stdin.end()
      await server.ended
    },
  }
}

/** A directory that the test removes. */
export function scratch(): { path(name: string): string, remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), 'nvent-cli-'))
  return { path: name => join(dir, name), remove: () => rmSync(dir, { recursive: true, force: true }) }
}
