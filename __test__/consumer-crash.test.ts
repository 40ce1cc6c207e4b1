/** Durable consumers whose processes are killed. */
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { RedisServer } from './support/redis'
import { until } from './support/until'

const script = fileURLToPath(new URL('fixtures/consumes.mjs', import.meta.url))

let redis: RedisServer
let dir: string
beforeAll(async () => {
  redis = await RedisServer.start()
  dir = await mkdtemp(path.join(tmpdir(), 'nvent-consumer-'))
})
afterAll(async () => {
  await redis.stop()
  await rm(dir, { recursive: true, force: true })
})

class Instance {
  output = ''
  readonly child: ChildProcess
  readonly closed: Promise<any[]>

  constructor(...args: string[]) {
    this.child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.child.stdout!.setEncoding('utf8').on('data', text => this.output += text)
    this.closed = once(this.child, 'close')
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await this.closed
  }

  /** What was acknowledged; a line that was cut off was not. */
  get acknowledged(): string[] {
    return this.output.slice(0, this.output.lastIndexOf('\n') + 1).split('\n').filter(Boolean)
  }
}

/** What was handled, in order: who did it, the subject and the number. */
async function handled(log: string): Promise<Array<[pid: string, subject: string, n: number]>> {
  const lines = (await readFile(log, 'utf8')).split('\n').filter(Boolean).map(line => line.split(' '))
  return lines.map(([pid, subject, n]) => [pid!, subject!, Number(n)])
}

/** Asserts that everything was handled, and each event of a subject for the first time after the one before it. */
async function expectHandled(log: string, acknowledged: string[]): Promise<void> {
  const all = await handled(log)
  const known = new Set(all.map(([, subject, n]) => `${subject} ${n}`))
  expect(acknowledged.filter(line => !known.has(line))).toEqual([])
  const next = new Map<string, number>()
  for (const [, subject, n] of all) {
    const expected = next.get(subject) ?? Number(subject.split(':')[1])
    if (n > expected) expect.fail(`${subject}: ${n} was handled before ${expected}`)
    if (n === expected) next.set(subject, n + 3)
  }
  expect(acknowledged.length).toBeGreaterThan(100)
}

it('file: everything is handled and in order, whenever the process is killed', async () => {
  const [place, log] = [path.join(dir, 'store'), path.join(dir, 'file.log')]
  await writeFile(log, '')
  const acknowledged: string[] = []
  for (let round = 0; round < 10; round++) {
    const instance = new Instance('file', place, log, 'append')
    const after = randomInt(1, 2_000)
    await until('it appends', () => instance.output.length > after, 30_000)
    await instance.kill()
    acknowledged.push(...instance.acknowledged)
  }
  const [code] = await new Instance('file', place, log, 'drain').closed
  expect(code).toBe(0)
  await expectHandled(log, acknowledged)
}, 120_000)

it('redis: another process takes over, everything is handled and in order, whichever process is killed when', async () => {
  const [place, log] = [String(redis.port), path.join(dir, 'redis.log')]
  await writeFile(log, '')
  const start = (): Instance => new Instance('redis', place, log, 'append')
  const ended: Instance[] = []
  const running = [start(), start()]
  const latest = async (): Promise<string | undefined> => (await handled(log)).at(-1)?.[0]
  let holder: string | undefined
  for (let round = 0; round < 8; round++) {
    if (round % 4 === 0) {
      // The one at work: the other takes over when its lease has ended.
      holder = await until('one handles events', async () => {
        const newest = await latest()
        return newest !== holder && running.some(({ child }) => String(child.pid) === newest) ? newest : undefined
      }, 20_000)
      const victim = running.findIndex(({ child }) => String(child.pid) === holder)
      await running[victim]!.kill()
      ended.push(...running.splice(victim, 1, start()))
      await until('the other one handles events', async () => await latest() !== holder, 15_000)
    }
    else {
      await pause(randomInt(1, 500))
      const victim = randomInt(2)
      await running[victim]!.kill()
      ended.push(...running.splice(victim, 1, start()))
    }
  }
  for (const instance of running) await instance.kill()
  ended.push(...running)
  const [code] = await new Instance('redis', place, log, 'drain').closed
  expect(code).toBe(0)
  await expectHandled(log, ended.flatMap(instance => instance.acknowledged))
}, 180_000)
