/** The command, as a process, on a directory that a server has open. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FileStoreAdapter } from 'nvent-native'
import { BIN, nvent, onTerminal, scratch, serve, start } from './support/cli'
import { rejects, until } from './support/until'

const files = scratch()
const data = files.path('data')
let running: Awaited<ReturnType<typeof serve>>
beforeAll(async () => {
  running = await serve('file', data)
}, 60_000)
afterAll(async () => {
  await running?.stop()
  files.remove()
})

const on = (...args: string[]): string[] => [...args, '--dir', data]
// eslint-disable-next-line no-control-regex
const plain = (text: string): string => text.replace(/\u001b\[[0-9;]*m/g, '').replaceAll('\r', '')

describe('on a directory that a server has open', () => {
  it('runs are listed newest first, filtered and page by page', async () => {
    const all = await nvent(on('runs'))
    expect(all).toMatchObject({ code: 0, stderr: '' })
    expect(all.rows.map(({ runId, status, flow }) => [runId, status, flow])).toEqual([
      ['run-stuck', 'running', 'order'], ['run-broken', 'failed', 'order'], ['run-retried', 'completed', 'order'], ['run-ok', 'completed', 'order'],
    ])
    expect(all.rows[1]).toMatchObject({ error: 'the card was declined', startedAt: expect.stringMatching(/^\d{4}-.*Z$/), steps: 2, completedSteps: 1 })
    expect((await nvent(on('runs', 'order', '--status', 'failed,running', '--limit=1', '--offset', '1'))).rows.map(run => run.runId)).toEqual(['run-broken'])
    expect(await nvent(on('runs', 'odrer'))).toMatchObject({ code: 1, stderr: expect.stringContaining('there are runs of order') })
  })

  it('a run has its steps with attempts, its error, what waits for it, and its events', async () => {
    const { rows: [retried] } = await nvent(on('run', 'run-retried'))
    expect(retried).toMatchObject({ runId: 'run-retried', subject: 'nq:flow:run-retried', flow: 'order', status: 'completed', steps: [{ step: 'check', status: 'completed', attempts: 2 }, { step: 'pay', attempts: 1 }] })
    expect(retried.events[0]).toMatchObject({ type: 'flow.start', time: expect.stringMatching(/Z$/) })
    const { rows: [broken] } = await nvent(on('run', 'run-broken'))
    expect(broken).toMatchObject({ status: 'failed', error: 'the card was declined', steps: [{ step: 'check' }, { step: 'pay', status: 'failed', error: 'the card was declined' }], jobs: [{ id: 'run-broken__pay', state: 'failed' }] })
    const { rows: [stuck] } = await nvent(on('run', 'run-stuck'))
    expect(stuck).toMatchObject({ status: 'running', steps: [{ step: 'check', status: 'completed' }, { step: 'pay', status: 'active' }], jobs: [{ queue: 'order.pay', state: 'active' }] })
    const { rows: [ok] } = await nvent(on('run', 'run-ok'))
    expect(ok.parked).toMatchObject([{ consumer: 'mailer', type: 'mail', reason: 'no route to the mail server' }, {}, {}])
    expect(await nvent(on('run', 'nothing'))).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('NVENT_NOT_FOUND: there is no run "nothing"') })
  })

  it('events, queues, jobs, consumers and what is parked are read', async () => {
    expect((await nvent(on('events', 'mails', '--limit', '2'))).rows.map(event => event.to)).toEqual(['user-2', 'user-3'])
    const [first] = (await nvent(on('events', 'mails'))).rows
    expect((await nvent(on('events', 'mails', '--after', first.id, '--type', 'mail'))).rows).toHaveLength(2)
    expect((await nvent(on('jobs'))).rows).toMatchObject([{ queue: 'order.check', counts: { completed: 4 } }, { queue: 'order.pay', counts: { active: 1, failed: 1 } }])
    expect((await nvent(on('jobs', 'order.pay', '--status', 'failed'))).rows).toMatchObject([{ queue: 'order.pay', id: 'run-broken__pay', failedReason: 'the card was declined' }])
    expect((await nvent(on('consumers'))).rows).toContainEqual({ name: 'mailer', position: expect.any(String), lag: 0, parked: 3 })
    const { rows: parked } = await nvent(on('parked'))
    expect(parked).toMatchObject([{ consumer: 'mailer', subject: 'mails', event: { to: 'user-1' }, attempts: 1, reason: 'no route to the mail server' }, {}, {}])
    expect((await nvent(on('parked', 'mailer', '--after', parked[0].position, '--limit', '1'))).rows).toEqual([parked[1]])
    expect(await nvent(on('parked', 'maler'))).toMatchObject({ code: 1, stderr: expect.stringContaining('there are mailer') })
  })

  it('nothing in the directory changes, and what writes is refused with who has it open', async () => {
    const before = readdirSync(data, { recursive: true }).sort()
    for (const [command, input] of [[['replay', 'mailer', '--all'], undefined], [['import'], BIN]] as const) {
      const refused = await nvent(on(...command), input === undefined ? {} : { input })
      expect(refused).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`NVENT_LOCKED.*pid ${running.server.child.pid} .*this command writes`)) })
    }
    expect((await nvent(on('parked'))).rows).toHaveLength(3)
    expect(readdirSync(data, { recursive: true }).sort()).toEqual(before)
  })

  it('a store that is only read refuses what writes', async () => {
    const store = new FileStoreAdapter({ dataDir: `${data}/store`, readOnly: true, bus: null })
    expect(await store.kv.get('plain')).toEqual({ a: [1, 'ü', null] })
    expect(await store.kv.get('gone')).toBeNull()
    for (const write of [() => store.append('s', { type: 't' }), () => store.kv.set('a', 1), () => store.kv.clear('*'), () => store.consume('c', () => {}), () => store.subscribe('s', () => {}), () => store.replay('mailer'), () => store.deleteConsumer('mailer'), () => store.stream.delete('mails')]) {
      await rejects(write, 'NVENT_INVALID', /readOnly/)
    }
    expect(await store.health()).toMatchObject({ ok: true })
    await store.close()
    const missing = new FileStoreAdapter({ dataDir: files.path('nowhere'), readOnly: true, bus: null })
    await rejects(missing.init(), 'NVENT_NOT_FOUND', /nowhere/)
    await missing.close()
    expect(readdirSync(files.path('.'))).not.toContain('nowhere')
  })

  it('verify and backup work beside the server, and the copy can be used', async () => {
    expect(await nvent(on('verify'))).toMatchObject({ code: 0, rows: [{ ok: true, problems: [] }, { ok: true, problems: [] }] })
    const copy = files.path('copy')
    expect((await nvent(on('backup', copy))).code).toBe(0)
    expect(await nvent(on('backup', copy))).toMatchObject({ code: 1, stderr: expect.stringContaining('is there already') })
    expect((await nvent(['runs', '--dir', copy])).rows).toHaveLength(4)
    expect((await nvent(['jobs', '--dir', copy])).rows).toHaveLength(2)
    // No process has the copy open, so it can be written to.
    expect((await nvent(['replay', 'mailer', '--all', '--dir', copy])).rows).toEqual([{ consumer: 'mailer', replayed: 3 }])
  })

  it('doctor says what is there and what to do', async () => {
    const { code, rows } = await nvent(on('doctor'))
    expect(code).toBe(0)
    const level = Object.fromEntries(rows.map(({ check, level }) => [check, level]))
    expect(level).toMatchObject({ 'node': 'ok', 'addon': 'ok', 'directory': 'ok', 'writable': 'ok', 'permissions': 'ok', 'store lock': 'ok', 'store': 'ok', 'queue': 'ok', 'parked': 'warning' })
    expect(rows.find(({ check }) => check === 'store lock').found).toContain(`process ${running.server.child.pid} has it open`)
    expect(await nvent(['doctor', '--dir', files.path('nowhere')])).toMatchObject({ code: 3 })
  })

  it('on a terminal each list is a table, and says how to go on', async () => {
    const shown = async (...args: string[]): Promise<string> => plain((await onTerminal(on(...args, '--no-color'), 160)).stdout)
    expect(await shown('runs', '--limit', '1')).toMatch(/^run-stuck\s+order\s+running\s.*\n+for more: --offset 1\n/m)
    expect(await shown('jobs')).toMatch(/^queue\s+active\s+waiting\s+paused\s+delayed\s+failed\s+completed\norder\.check\s+0\s+0\s+0\s+0\s+0\s+4\norder\.pay\s+1\s+0\s+0\s+0\s+1\s+2$/m)
    expect(await shown('jobs', 'order.pay', '--status', 'failed')).toMatch(/^run-broken__pay\s+pay\s+failed\s+1\s+\d{4}-\d\d-\d\d .*\s\d+ ms\s+the card was declined$/m)
    expect(await shown('jobs', 'order.pay', '--status', 'delayed')).toContain('no jobs')
    expect(await shown('consumers')).toMatch(/^consumer\s+position\s+lag\s+parked\n(.*\n)*mailer\s+\S+\s+0\s+3$/m)
    expect(await shown('parked')).toMatch(/^mailer\s+\S+\s+mails\s+mail\s+1\s+\d{4}.*no route to the mail server$/m)
    expect(await shown('parked')).toContain('to deliver them again: nvent-native replay mailer <position> … or --all')
    expect(await shown('events', 'nothing')).toContain('no events in nothing')
    const run = await shown('run', 'run-broken')
    expect(run).toMatch(/^run-broken {2}order {2}failed\nstarted .*, ended after .*\nerror {3}the card was declined\n/m)
    expect(run).toMatch(/^Steps\nstep\s+status\s+attempts\s+took\s+error\ncheck\s+completed\s+1\s.*\npay\s+failed\s+1\s.*the card was declined$/m)
    expect(run).toMatch(/^Jobs that are not done\n.*\norder\.pay\s+run-broken__pay\s+failed\s+1\s+the card was declined$/m)
    expect(run).toMatch(/^Events\n\d\d:\d\d:\d\d\.\d{3}\s+flow\.start/m)
    expect(await shown('run', 'run-ok')).toMatch(/^Parked events\n.*\n(mailer\s+\S+\s+mail\s+1\s+no route to the mail server\n){3}/m)
    expect(await shown('verify')).toMatch(/^whole {2}.*nvent\.db {2}\(\d+ rows\)\nwhole {2}.*queue\.db$/m)
    expect(await shown('doctor')).toMatch(/^warning\s+parked\s+3 events\n\s+what to do: `nvent-native parked` says why/m)
  }, 60_000)
})

describe('on other directories', () => {
  it('what a killed server left is read, and nothing is said to have it open', async () => {
    const dir = files.path('killed')
    const { server } = await serve('file', dir)
    server.child.kill('SIGKILL')
    await server.ended
    expect((await nvent(['runs', '--dir', dir])).rows).toHaveLength(4)
    expect((await nvent(['jobs', 'order.pay', '--dir', dir, '--status', 'active'])).rows).toMatchObject([{ id: 'run-stuck__pay' }])
    expect((await nvent(['doctor', '--dir', dir])).rows.find(({ check }) => check === 'store lock').found).toBe('no process has it open')
    expect((await nvent(['replay', 'mailer', '--all', '--dir', dir])).rows).toEqual([{ consumer: 'mailer', replayed: 3 }])
  })

  it('runs are found where nvent itself keeps them', async () => {
    const dir = files.path('nvent')
    const store = new FileStoreAdapter({ dataDir: `${dir}/store`, bus: null })
    await store.index.add('shop:flow:runs:diamond', 'r1', 5, { status: 'completed', startedAt: '2026-01-02T03:04:05.006Z', error: 'cleared \u001b[2J, twice' })
    await store.append('shop:flow:run:r1', { type: 'flow.start', runId: 'r1', flowName: 'diamond' })
    await store.close()
    expect((await nvent(['runs', 'diamond', '--dir', dir])).rows).toMatchObject([{ runId: 'r1', status: 'completed', startedAt: '2026-01-02T03:04:05.006Z' }])
    // Text is shown, not obeyed.
    const { stdout } = await onTerminal(['runs', '--dir', dir], 140)
    expect(stdout).toContain('cleared  [2J, twice')
    expect(stdout).not.toContain('\u001b[2J')
    // This process has closed the store.
    if (process.platform === 'linux') expect(stdout).not.toContain('reading beside')
    expect((await nvent(['run', 'r1', '--dir', dir])).rows).toMatchObject([{ subject: 'shop:flow:run:r1', flow: 'diamond' }])
  })

  it('verify exits with 3 where a row is damaged', async () => {
    const dir = files.path('damaged')
    const store = new FileStoreAdapter({ dataDir: dir, bus: null })
    await store.append('s', { type: 't', text: 'as it was written' })
    await store.close()
    const file = `${dir}/nvent.db`
    writeFileSync(file, readFileSync(file, 'latin1').replace('as it was written', 'as it was WRITTEN'), 'latin1')
    expect(await nvent(['verify', '--dir', dir])).toMatchObject({ code: 3, rows: [{ ok: false, problems: [expect.stringContaining('checksum')] }] })
  })
})

describe('following', () => {
  it('Ctrl-C ends it with 130, and the end of the run with 0', async () => {
    const interrupted = start(on('events', 'mails', '--follow'))
    await interrupted.prints('user-3')
    interrupted.child.kill('SIGINT')
    expect(await interrupted.ended).toBe(130)
    const following = start(on('run', 'run-stuck', '--follow'))
    await following.prints('step.started')
    expect(following.stdout).not.toContain('flow.completed')
    running.server.child.stdin.write('finish\n')
    const { code, rows } = await following.exit()
    expect(code).toBe(0)
    expect(rows.at(-1)).toMatchObject({ type: 'flow.completed', runId: 'run-stuck' })
    expect(new Set(rows.map(event => event.id)).size).toBe(rows.length)
  })
})

describe('on a terminal', () => {
  it('tables fit its width, with colours unless they are not wanted', async () => {
    const wide = await onTerminal(on('runs'), 140)
    expect(wide.stdout).toContain('\u001b[31m')
    expect(plain(wide.stdout)).toMatch(/run-broken\s+order\s+failed\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}.*the card was declined/)
    const narrow = await onTerminal(on('runs', '--no-color'), 60)
    expect(narrow.stdout).not.toContain('\u001b[3')
    const lines = plain(narrow.stdout).trim().split('\n')
    expect(lines.filter(line => line.startsWith('run-'))).toHaveLength(4)
    expect(Math.max(...lines.filter(line => !line.startsWith('process')).map(line => line.length))).toBeLessThanOrEqual(60)
    expect((await onTerminal(on('runs'), 140, { NO_COLOR: '1' })).stdout).not.toContain('\u001b[3')
    expect(plain((await onTerminal(on('runs', '--json'), 140)).stdout)).toMatch(/^\{"runId":"run-stuck"/)
  })

  it('text of events is shown, not obeyed', async () => {
    const { stdout } = await onTerminal(on('events', 'mails', '--no-color'), 140)
    expect(stdout).not.toContain('\u001b[31m')
    expect(stdout).toContain('"to":"user-1"')
    expect(plain((await onTerminal(on('export'), 80)).stdout)).toContain('send it to a file')
  })
})

describe('how it is called', () => {
  it('names what was meant, and exits with 2', async () => {
    expect(await nvent(['runz'])).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('did you mean "runs"?') })
    expect(await nvent(on('runs', '--statsu', 'failed'))).toMatchObject({ code: 2, stderr: expect.stringContaining('did you mean "--status"?') })
    for (const args of [['runs', '--limit'], ['runs', '--limit', 'x'], ['run'], ['run', 'a', 'b'], ['replay', 'mailer'], ['replay', 'mailer', '1', '--all'], ['runs', '--json=1'], ['verify', '--redis', 'redis://127.0.0.1:1']]) {
      expect(await nvent(args), args.join(' ')).toMatchObject({ code: 2, stdout: '' })
    }
    expect(await nvent(['runs', '--dir', files.path('nowhere')])).toMatchObject({ code: 1, stderr: expect.stringContaining('--dir') })
    expect(await nvent(['runs', '--redis', 'redis://127.0.0.1:1'])).toMatchObject({ code: 1 })
  }, 60_000)

  it('help, version, and the directory from the environment', async () => {
    expect(await nvent([])).toMatchObject({ code: 0, stdout: expect.stringContaining('usage: nvent-native <command>') })
    expect(await nvent(['replay', '--help'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/nvent-native replay <consumer>[^]*\n {2}--all\s[^]*\n {2}--dir <path>\s(?![^]*undefined)/) })
    expect(await nvent(['--version'])).toMatchObject({ code: 0, stdout: `${JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version}\n` })
    expect((await nvent(['runs'], { env: { NVENT_DIR: data } })).rows).toHaveLength(4)
    expect((await nvent(['runs', '--dir', `${data}/store`])).rows).toHaveLength(4)
    expect((await nvent(['jobs', '--dir', `${data}/store`])).rows).toHaveLength(2)
  })

  it('a reader that has enough ends it quietly', async () => {
    const child = spawn('sh', ['-c', `'${process.execPath}' '${BIN}' events mails --follow --dir '${data}' | head -n 1`])
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', text => stdout += text)
    child.stderr.setEncoding('utf8').on('data', text => stderr += text)
    const closed = once(child, 'close')
    await until('the first line', () => stdout.includes('user-1'), 30_000)
    // What it writes next has no reader.
    const timer = setInterval(() => running.server.child.stdin.write('mail\n'), 50)
    await closed
    clearInterval(timer)
    expect(stderr).toBe('')
    expect(stdout.trim().split('\n')).toHaveLength(1)
  })
})
