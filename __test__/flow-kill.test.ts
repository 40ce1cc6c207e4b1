import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { run } from './support/process'

const ROUNDS = 8
const RUNS = 400

const script = fileURLToPath(new URL('fixtures/publishes-runs.mjs', import.meta.url))

it('ends every run although the process is killed again and again while runs are under way', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-flow-crash-'))
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const child = spawn(process.execPath, [script, dataDir, String(round * RUNS), String(RUNS)], { stdio: ['ignore', 'pipe', 'inherit'] })
      const exited = once(child, 'exit')
      await once(child.stdout, 'data')
      // Any moment of the work that is left: nothing depends on which.
      setTimeout(() => child.kill('SIGKILL'), randomInt(0, 60))
      await exited
    }
    const { code, stdout, stderr } = await run('publishes-runs.mjs', dataDir, '0', '0', '60000')
    expect({ code, stdout: stdout.trim(), stderr }).toEqual({ code: 0, stdout: expect.stringMatching(/ended 0 of \d+$/), stderr: expect.any(String) })
    expect(Number(/of (\d+)/.exec(stdout)![1])).toBe(ROUNDS * RUNS)
  }
  finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 120_000)

it('ends a run without a log whose processes were killed while its first step ran', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-flow-crash-'))
  const fixture = fileURLToPath(new URL('fixtures/hangs-in-a-step.mjs', import.meta.url))
  try {
    // A job whose worker has gone away four times is not tried again.
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, [fixture, dataDir], { stdio: ['ignore', 'pipe', 'inherit'] })
      const exited = once(child, 'exit')
      await once(child.stdout, 'data')
      child.kill('SIGKILL')
      await exited
    }
    const { code, stdout } = await run('hangs-in-a-step.mjs', dataDir, 'recover')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toEqual({ id: 'r1', status: 'failed', events: ['step.failed', 'flow.failed'] })
  }
  finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 120_000)
