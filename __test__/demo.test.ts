import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runFile } from './support/process'

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

  it('says what to install where there is no redis-server', async () => {
    const { code, stderr } = await demo(dir, ['--redis'], { ...process.env, PATH: dir })
    expect(code).toBe(1)
    expect(stderr).toBe('This demo needs redis-server on the PATH: `apt install redis-server`, or `brew install redis`.\n')
  })
})
