/// <reference lib="dom" />
import { createHmac } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import parse from 'parse-prometheus-text-format'
import { chromium, type Browser, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Webhook } from 'standardwebhooks'
import { Receiver } from '../support/receiver.js'
import { App, eventually, type Built, type Server } from './app.js'

const SLOW = 240_000
const STEPS = Array.from({ length: 20 }, (_, n) => `s${n}`)

describe('a run in a browser', () => {
  let app: App, built: Built, server: Server, browser: Browser, receiver: Receiver

  beforeAll(async () => {
    app = await App.create('realtime')
    built = await app.build()
    receiver = await Receiver.start()
    server = await built.start({ RECEIVER_URL: receiver.url })
    const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
    browser = await chromium.launch({ executablePath, headless: true, args: ['--no-sandbox', '--disable-gpu'] })
  }, SLOW)
  afterAll(async () => {
    await browser?.close()
    await server?.stop('SIGKILL')
    await built?.remove()
    await app?.remove()
    await receiver?.stop()
  })

  const open = async (runId: string): Promise<Page> => {
    const page = await browser.newPage()
    await page.goto(`${server.url}/?run=${runId}`)
    return page
  }
  const ids = (page: Page) => page.locator('li').evaluateAll(rows => rows.map(row => row.getAttribute('data-id')!))
  const completed = (page: Page) => page.waitForSelector('main[data-status=completed]', { timeout: 60_000 })

  test('is followed from its first event to its end', async () => {
    const page = await open('whole')
    await page.waitForSelector('main[data-connected=true]')
    expect(await page.getAttribute('main', 'data-status')).toBe('pending')
    await server.post('/api/start', { runId: 'whole' })
    await completed(page)
    const rows = await page.locator('li').allTextContents()
    expect(rows[0]).toContain('flow.start')
    expect(rows.at(-1)).toContain('flow.completed')
    expect(await page.locator('[data-step]').allTextContents()).toEqual(STEPS.map(() => 'completed'))
    await page.close()
  }, SLOW)

  test('misses nothing when the server is killed and started again in the middle', async () => {
    await server.post('/api/start', { runId: 'killed' })
    const page = await open('killed')
    await page.waitForSelector('[data-step=s5]')
    const { port } = server
    await server.stop('SIGKILL')
    await page.waitForSelector('main[data-connected=false]')
    server = await built.start({ PORT: port, RECEIVER_URL: receiver.url })
    await completed(page)
    const seen = await ids(page)
    expect(new Set(seen).size).toBe(seen.length)
    const other = await open('killed')
    await completed(other)
    expect(seen).toEqual(await ids(other))
    await Promise.all([page.close(), other.close()])
  }, SLOW)

  test('is sent, signed, to a webhook of the app when it has ended', async () => {
    await server.post('/api/start', { runId: 'sent' })
    const sent = await eventually(async () => receiver.requests.find(({ body }) => JSON.parse(body).data.runId === 'sent'), 'the request')
    const { type } = new Webhook('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw').verify(sent.body, sent.headers as Record<string, string>) as { type: string }
    expect(type).toBe('flow.completed')
  }, SLOW)

  test('is shown only where the app allows it', async () => {
    const response = await fetch(new URL('/_nvent/runs/secret-1/events', server.url))
    expect(response.status).toBe(403)
  })

  test('metrics are readable where the app allows it', async () => {
    const url = new URL('/_nvent/metrics', server.url)
    expect((await fetch(url)).status).toBe(403)
    const response = await fetch(url, { headers: { authorization: 'Bearer of-the-test' } })
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    const names: string[] = parse(await response.text()).map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining(['nvent_store_appends_total', 'nvent_store_append_seconds', 'nvent_queue_jobs', 'nvent_flow_completed_total']))
  })

  test('a signed request starts a run, once, and one without a good signature does not', async () => {
    const send = async (trigger: string, id: string, signature?: string) => {
      const [body, at] = ['{"n":1}', String(Math.floor(Date.now() / 1000))]
      const key = Buffer.from('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw', 'base64')
      const signed = `v1,${createHmac('sha256', key).update(`${id}.${at}.${body}`).digest('base64')}`
      const headers = { 'content-type': 'application/json', 'webhook-id': id, 'webhook-timestamp': at, 'webhook-signature': signature ?? signed }
      return (await fetch(new URL(`/_nvent/webhooks/${trigger}`, server.url), { method: 'POST', body, headers })).status
    }
    expect([await send('count', 'm1'), await send('count', 'm1'), await send('count', 'm2', 'v1,AAAA'), await send('other', 'm3')]).toEqual([202, 409, 401, 404])
    const [run] = await eventually(async () => {
      const runs = await server.get('/api/runs')
      return runs.length > 0 && runs
    }, 'the run')
    expect(run).toMatchObject({ type: 'flow.start', data: { input: { n: 1 } }, trigger: { id: 'count', cause: 'm1', kind: 'webhook' } })
  }, SLOW)

  test('a build has no inspector unless it is asked for', async () => {
    const files = await readdir(join(built.home, 'app'), { recursive: true, withFileTypes: true })
    const texts = await Promise.all(files.filter(file => file.isFile() && file.name.endsWith('.mjs')).map(file => readFile(join(file.parentPath, file.name), 'utf8')))
    expect(texts.some(text => text.includes('/_nvent/runs'))).toBe(true)
    expect(texts.filter(text => text.includes('/_nvent/inspector'))).toEqual([])
  })

  test('a page that is open does not keep the server from ending', async () => {
    const page = await open('nobody')
    await page.waitForSelector('main[data-connected=true]')
    const { port } = server
    expect(await server.stop('SIGTERM')).toBe(0)
    server = await built.start({ PORT: port })
    await page.close()
  }, SLOW)
})

test('without a file that decides, a built server refuses to follow a run, read metrics or show the inspector', async () => {
  const app = await App.create('realtime', { config: '{ modules: [\'nvent-native\'], nventNative: { realtime: {}, metrics: true, inspector: true }, nvent: { store: { adapter: \'memory\' }, queue: { adapter: \'memory\' } } }' })
  const built = await app.build()
  const server = await built.start()
  try {
    for (const path of ['runs/any/events', 'metrics', 'inspector', 'inspector/', 'inspector/app.js', 'inspector/api/overview', 'inspector/api/live']) {
      expect((await fetch(new URL(`/_nvent/${path}`, server.url))).status, path).toBe(403)
    }
    const headers = { 'content-type': 'application/json', 'sec-fetch-site': 'same-origin' }
    expect((await fetch(new URL('/_nvent/inspector/api/run/cancel', server.url), { method: 'POST', headers, body: '{}' })).status).toBe(403)
  }
  finally {
    await server.stop('SIGKILL')
    await built.remove()
    await app.remove()
  }
}, SLOW)
