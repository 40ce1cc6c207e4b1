import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export interface Exit { code: number | null, signal: NodeJS.Signals | null, stdout: string, stderr: string }

/** Runs a script of `fixtures/` in a child process and resolves when it has exited. */
export const run = (script: string, ...args: string[]): Promise<Exit> => runFile(`fixtures/${script}`, args)

/** Runs any script, given by its path relative to `__test__`. */
export function runFile(path: string, args: string[], options: { cwd?: string, env?: NodeJS.ProcessEnv } = {}): Promise<Exit> {
  const file = fileURLToPath(new URL(`../${path}`, import.meta.url))
  const child = spawn(process.execPath, [file, ...args], { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  const out = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', text => out.stdout += text)
  child.stderr.setEncoding('utf8').on('data', text => out.stderr += text)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, ...out }))
  })
}
