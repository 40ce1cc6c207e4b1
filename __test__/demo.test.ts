import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runFile } from './support/process'
import { until } from './support/until'

const demo = (cwd: string, args: string[] = [], env = process.env) => runFile('../examples/demo.mjs', args, { cwd, env })

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'nvent-demo-'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

it('lists the runs of the first start in the second', async () => {
  const first = await demo(dir)
  expect(first).toMatchObject({ code: 0, stderr: '' })
  expect(first.stdout).toContain('none: start the demo again')
  const [shown] = first.stdout.match(/order-\w+-1/)!
  for (const channel of ['store-sync', 'flow', 'client']) {
    expect(first.stdout).toMatch(new RegExp(`ms  ${channel} .*flow\\.completed`))
  }

  expect(first.stdout.match(/order-\w+-\d +flow\.completed, accounting:\d+-\d+:\w+/g)).toHaveLength(3)
  expect(first.stdout.match(/order-\w+-\d +receipt-[0-9a-f]{32}\n/g)).toHaveLength(3)

  const second = await demo(dir)
  expect(second).toMatchObject({ code: 0, stderr: '' })
  expect(second.stdout).toMatch(new RegExp(`${shown} +completed, started`))
})

describe('on Redis', () => {
  it('shows in each process what the other does, and leaves no server', async () => {
    const { stdout, ...exit } = await demo(dir, ['--redis'])
    expect(exit).toEqual({ code: 0, signal: null, stderr: '' })
    for (const [reader, other] of [['first', 'second'], ['second', 'first']]) {
      const shown = stdout.split('\n').filter(line => line.startsWith(reader!))
      for (const [source, topic] of [
        ['store-sync', `store-sync:append:nq:flow:order-${other}`],
        ['flow', `flow:event:order-${other}`],
        ['client', `client:flow:order-${other}`],
        ['store', `nq:flow:order-${other}`],
      ]) {
        const lines = shown.filter(line => line.includes(` ${source} `) && line.includes(` ${topic} `))
        expect(lines[0], `${source} in the ${reader}`).toContain('flow.start')
        expect(lines.at(-1), `${source} in the ${reader}`).toContain('flow.completed')
      }
      expect(shown.join('\n')).not.toContain(`order-${reader}`)
      const [, found] = new RegExp(`${reader} finds +(.*)`).exec(stdout)!
      expect(found!.split(', ').sort()).toEqual(['order-first completed', 'order-second completed'])
    }

    const port = Number(/127\.0\.0\.1:(\d+)/.exec(stdout)![1])
    await expect(once(connect(port, '127.0.0.1'), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  /** Kills a process of the demo with SIGKILL when it has said something, and waits for all of it to end. */
  async function killing(who: RegExp, when: RegExp) {
    const file = fileURLToPath(new URL('../examples/demo.mjs', import.meta.url))
    const child = spawn(process.execPath, [file, '--redis'], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let killed = false
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text
      if (killed || !when.test(stdout)) return
      killed = true
      process.kill(Number(who.exec(stdout)![1]), 'SIGKILL')
    })
    const [code] = await once(child, 'close')
    const port = Number(/127\.0\.0\.1:(\d+)/.exec(stdout)![1])
    await until('no server is left', () => once(connect(port, '127.0.0.1'), 'connect').then(() => false, () => true))
    return { code, stdout }
  }

  it.each([/second (\d+)/, / flow\.start/, / emit/, / flow\.completed/])(
    'goes on and loses nothing when Redis is killed after %s', async (when) => {
      const { code, stdout } = await killing(/redis-server is process (\d+)/, when)
      expect(code, stdout).toBe(0)
      expect(stdout).toContain('redis-server exited (SIGKILL); restarting it')
      for (const name of ['first', 'second']) {
        const [, found] = new RegExp(`${name} finds +(.*)`).exec(stdout)!
        expect(found!.split(', ').sort()).toEqual(['order-first completed', 'order-second completed'])
      }
    }, 60_000)

  it('ends as ever when Redis is killed at the very end', async () => {
    const { code, stdout } = await killing(/redis-server is process (\d+)/, /first received/)
    expect(code, stdout).toBe(0)
  }, 60_000)

  it.each(['first', 'second'])('goes on alone when the %s process is killed', async (victim) => {
    const { stdout } = await killing(new RegExp(`${victim} (\\d+)`), new RegExp(`${victim} +store .* flow\\.start`))
    const survivor = victim === 'first' ? 'second' : 'first'
    expect(stdout).toContain(`${survivor}: the other process has exited; continuing alone`)
    expect(stdout).toMatch(new RegExp(`${survivor} finds .*order-${survivor} completed`))
  }, 60_000)

  it('says what to install where there is no redis-server', async () => {
    const { code, stderr } = await demo(dir, ['--redis'], { ...process.env, PATH: dir })
    expect(code).toBe(1)
    expect(stderr).toBe('This demo needs redis-server on the PATH: `apt install redis-server`, or `brew install redis`.\n')
  })
})
