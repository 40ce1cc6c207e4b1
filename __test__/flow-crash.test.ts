import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { FileStoreAdapter } from 'nvent-native'
import { expect, test } from 'vitest'

const RUNS = 60
/** A job that was at work in more kills than these has failed for good: it may be what ends the process. */
const KILLS = 3
const script = fileURLToPath(new URL('fixtures/runs-flows.mjs', import.meta.url))

/** Runs the script until it has ended, or until it has printed so many lines and is killed. */
async function runUntil(dataDir: string, killAfter: number): Promise<string[]> {
  const child = spawn(process.execPath, [script, dataDir, String(RUNS)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    if (output.split('\n').length > killAfter) child.kill('SIGKILL')
  })
  await once(child, 'close')
  return output.split('\n').filter(Boolean)
}

test.each([1, 2, 3, 4, 5])('runs of a flow end exactly once, whenever the process is killed (data directory %i)', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-flow-crash-'))
  try {
    for (let kill = 0; kill < KILLS; kill++) {
      await runUntil(dataDir, 1 + Math.floor(Math.random() * RUNS * 2))
    }
    const last = await runUntil(dataDir, Infinity)
    expect(last.at(-1)).toBe('all')
    expect(last.filter(line => line.startsWith('completed'))).toHaveLength(RUNS)
    const store = new FileStoreAdapter({ dataDir: join(dataDir, 'store'), bus: null })
    for (let n = 0; n < RUNS; n++) {
      const events = await store.read(`nq:flow:r${n}`)
      const count = (type: string, step?: string): number => events.filter(event => event.type === type && (step === undefined || event.stepName === step)).length
      expect(count('flow.start'), `starts of r${n}`).toBe(1)
      expect(count('flow.completed'), `ends of r${n}`).toBe(1)
      for (const step of ['first', 'left', 'right', 'join']) expect(count('step.completed', step), `${step} of r${n}`).toBe(1)
      expect(events.find(event => event.type === 'step.completed' && event.stepName === 'join')!.data.result).toBe(2 * n)
    }
    await store.close()
  }
  finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 240_000)
