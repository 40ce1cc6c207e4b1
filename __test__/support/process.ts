import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

export interface Exit { code: number | null, signal: NodeJS.Signals | null, stdout: string, stderr: string }

/** Runs a script of `fixtures/` in a process of its own until it exits by itself. */
export function run(script: string, ...args: string[]): Promise<Exit> {
  const file = fileURLToPath(new URL(`../fixtures/${script}`, import.meta.url))
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const out = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', text => out.stdout += text)
  child.stderr.setEncoding('utf8').on('data', text => out.stderr += text)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, ...out }))
  })
}
