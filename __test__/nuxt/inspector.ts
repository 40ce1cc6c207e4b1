/// <reference lib="dom" />
/** What the inspector must do, on a built app that has the flow of the playground. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FileStoreAdapter } from 'nvent-native'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { eventually, type Built, type Server } from './app.js'
import { chromiumPath, FLAGS } from './browser.js'

const RUNS = 100_000
/** One of so many runs of the fixture failed. */
const FAILED = 100
const MARKUP = '<img src=x onerror="window.broken = true"><script>window.broken = true</script>'
const idOf = (n: number) => `bulk-${String(n).padStart(6, '0')}`

export function inspector(app: () => Built) {
  describe('the inspector', () => {
    let dir: string, server: Server, browser: Browser, context: BrowserContext, page: Page
    const errors: string[] = []

    beforeAll(async () => {
      dir = await mkdtemp(join(tmpdir(), 'nvent-inspector-'))
      await fill(join(dir, 'store'))
      server = await app().start({ NUXT_NVENT_CONNECTIONS_FILE_DATA_DIR: dir })
      browser = await chromium.launch({ executablePath: await chromiumPath(), headless: true, args: FLAGS })
      context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' })
      context.setDefaultTimeout(30_000)
      page = await open()
    }, 120_000)
    afterAll(async () => {
      await browser?.close()
      await server?.stop('SIGKILL')
      if (dir) await rm(dir, { recursive: true, force: true })
    })
    afterEach(() => expect(errors.splice(0), 'errors in the page').toEqual([]))

    const open = async (hash = '') => {
      const page = await context.newPage()
      page.on('pageerror', error => errors.push(error.message))
      page.on('console', message => message.type() === 'error' && errors.push(message.text()))
      await page.goto(`${server.url}/_nvent/inspector${hash}`)
      await page.waitForSelector('.view')
      return page
    }
    const go = (hash: string) => page.evaluate(hash => location.hash = hash, hash)
    const rows = () => page.locator('.run').count()
    const active = () => page.evaluate(() => document.getElementById(document.activeElement!.getAttribute('aria-activedescendant')!)?.querySelector('[data-run]')?.getAttribute('data-run'))
    const post = (name: string, body: unknown, headers: Record<string, string>) =>
      fetch(`${server.url}/_nvent/inspector/api/${name}`, { method: 'POST', body: JSON.stringify(body), headers })
    const waitForCount = (selector: string, text: string) =>
      page.waitForFunction(([selector, text]) => document.querySelector(selector!)?.textContent === text, [selector, text])
    /** An order of the playground whose card is declined, once it has failed. */
    const declined = async (): Promise<string> => {
      const [id] = await server.post<string[]>('/api/orders', { count: 1, card: 'declined' })
      await eventually(async () => (await server.get<Array<{ type: string }>>(`/api/runs/${id}`)).some(({ type }) => type === 'flow.failed'), 'the failure')
      return id!
    }

    test('lists 100,000 runs, of which only what is in view is in the page', async () => {
      await waitForCount('.filters label:nth-child(1) b', '100,001')
      await page.waitForSelector(`[data-run=${idOf(RUNS - 1)}]`)
      expect(await rows()).toBeLessThan(60)
      await page.locator('[role=listbox]').focus()
      await page.keyboard.press('End')
      await page.keyboard.press('End')
      await page.waitForFunction(() => Number(document.querySelector('.row')?.getAttribute('aria-setsize')) >= 300)
      expect(await rows()).toBeLessThan(60)
      await page.keyboard.press('Home')
      await page.waitForSelector(`[data-run=${idOf(RUNS - 1)}]`)
    }, 60_000)

    test('filters by status', async () => {
      await page.getByRole('radio', { name: /failed/ }).check()
      await waitForCount('.filters label.failed b', '1,000')
      await page.waitForFunction(() => document.querySelectorAll('.run').length > 5 && Array.from(document.querySelectorAll('.run')).every(run => run.getAttribute('data-status') === 'failed'))
      await page.getByRole('radio', { name: /all/ }).check()
      await page.waitForSelector('.run[data-status=completed]')
    }, 60_000)

    test('finds a run by its id, and by the beginning of it, with the keyboard alone', async () => {
      await page.keyboard.press('Escape')
      await page.keyboard.press('/')
      await page.keyboard.type(idOf(51_234))
      await page.waitForFunction(() => document.querySelectorAll('.run').length === 1)
      await page.keyboard.press('Enter')
      expect(await active()).toBe(idOf(51_234))
      await page.keyboard.press('Enter')
      await page.waitForSelector(`.detail h1 >> text=${idOf(51_234)}`)
      await page.keyboard.press('Escape')
      await page.waitForSelector('.detail.none')
      await page.keyboard.press('/')
      await page.keyboard.type('with-')
      await page.waitForSelector('[data-run=with-markup]')
      await page.keyboard.press('Escape')
      await page.waitForSelector(`[data-run=${idOf(RUNS - 1)}]`)
      await page.keyboard.press('Escape')
      for (const expected of [1, 2, 3, 2]) {
        await page.keyboard.press(expected === 2 && await active() === idOf(RUNS - 4) ? 'ArrowUp' : 'ArrowDown')
        expect(await active()).toBe(idOf(RUNS - 1 - expected))
      }
    }, 60_000)

    test('shows data of events as text', async () => {
      await go('#/runs/order/with-markup')
      await page.waitForSelector('[data-event="log"]')
      await page.locator('[data-event="log"]').click()
      await page.click('[data-tab=event]')
      await page.waitForFunction(text => document.querySelector('.json')?.textContent?.includes(text), MARKUP.slice(0, 10))
      expect(await page.locator('.view img, .view script').count()).toBe(0)
      expect(await page.evaluate(() => 'broken' in window)).toBe(false)
      // The data of a large event is loaded when it is looked at.
      await page.locator('[data-event="large"]').click()
      await page.waitForFunction(() => (document.querySelector('.json')?.textContent?.length ?? 0) > 100_000)
    }, 60_000)

    test('a failed run: its bars, its error, its state at any event; it is retried and followed to its end', async () => {
      const id = await declined()
      await go(`#/runs/order/${id}`)
      await page.waitForSelector('.detail[data-status=failed]')
      expect(await page.textContent('.failure')).toContain('The card was declined')
      /** Waits until the track of a step has as many bars of a kind. */
      const bars = (step: string, kind: string, count: number) =>
        page.waitForFunction(([selector, count]) => document.querySelectorAll(selector).length === count, [`[data-track=${step}] [data-bar=${kind}]`, count] as const)
      await bars('charge', 'failed', 3)
      await page.locator('[data-track=charge] [data-bar=waiting]').nth(1).waitFor()
      await bars('reserve', 'completed', 1)
      await bars('ship', 'completed', 0)

      const state = (step: string) => page.locator(`.state [data-step=${step}]`).getAttribute('data-state')
      await page.waitForSelector('.state [data-step=charge][data-state=failed]')
      expect(await page.textContent('.state [data-step=ship]')).toContain('order.paid')
      await page.locator('.slider input').focus()
      await page.keyboard.press('Home')
      await page.waitForSelector('.state [data-step=validate][data-state=enqueued]')
      expect(await page.textContent('.state [data-step=ship]')).toContain('stock.reserved')
      await page.keyboard.press('ArrowRight')
      await page.waitForSelector('.state [data-step=validate][data-state=active]')
      expect(await state('charge')).toBe('waiting')
      await page.keyboard.press('End')
      await page.waitForSelector('.state [data-step=charge][data-state=failed]')

      await page.click('[data-act=retry]')
      await page.waitForSelector('.detail[data-status=completed]')
      await bars('charge', 'completed', 1)
      await bars('notify', 'completed', 1)
      await page.waitForSelector('.state [data-step=notify][data-state=completed]')
      await page.waitForSelector(`.list [data-run="${id}"][data-status=completed]`)
    }, 90_000)

    test('a run under way is cancelled', async () => {
      const [id] = await server.post<string[]>('/api/orders', { count: 1, card: 'slow' })
      await go(`#/runs/order/${id}`)
      await page.click('[data-act=cancel]')
      await page.waitForSelector('.detail[data-status=canceled]')
      expect(await page.textContent('.failure')).toContain('Cancelled in the inspector')
    }, 60_000)

    test('jobs by queue and state; a failed one is retried', async () => {
      const id = await declined()
      await page.click('[data-tab=jobs]')
      await page.click('[data-queue=orders]')
      await page.getByRole('radio', { name: /failed/ }).check()
      await page.click(`[data-job="${id}__charge"]`)
      expect(await page.textContent('.job .failure')).toContain('The card was declined')
      await page.click('[data-act=retry-job]')
      await page.waitForSelector('.said')
      await page.waitForSelector(`[data-job="${id}__charge"]`, { state: 'detached' })
    }, 60_000)

    test('consumers, what they have parked, and its replay', async () => {
      await page.click('[data-tab=consumers]')
      await waitForCount('[data-consumer=mailer] [data-count=parked]', '2')
      await page.click('[data-consumer=mailer]')
      await page.waitForFunction(() => document.querySelectorAll('[data-parked]').length === 2)
      expect(await page.textContent('[data-parked] em')).toContain('the mail server is away')
      await page.locator('[data-parked] input').first().check()
      await page.click('[data-act=replay]')
      await page.waitForSelector('.said')
      expect(await page.textContent('.said')).toContain('1 event is delivered again')
    }, 60_000)

    test('only the page itself may change something', async () => {
      const body = { flow: 'order', id: idOf(0) }
      const json = { 'content-type': 'application/json' }
      const status = async (headers: Record<string, string>) => (await post('run/cancel', body, headers)).status
      expect(await status({ ...json, 'sec-fetch-site': 'same-origin' })).toBe(200)
      expect(await status({ ...json, origin: server.url })).toBe(200)
      expect(await status(json)).toBe(403)
      expect(await status({ ...json, 'sec-fetch-site': 'cross-site', 'origin': server.url })).toBe(403)
      expect(await status({ ...json, origin: 'https://elsewhere.example' })).toBe(403)
      expect(await status({ 'content-type': 'text/plain', 'sec-fetch-site': 'same-origin' })).toBe(403)
      expect((await fetch(`${server.url}/_nvent/inspector/api/run/cancel`)).status).toBe(404)
    })

    test('wrong requests are refused with a reason', async () => {
      const answer = async (path: string) => {
        const response = await fetch(`${server.url}/_nvent/inspector/api/${path}`)
        return [response.status, (await response.json()).statusMessage]
      }
      expect(await answer('runs?limit=x')).toEqual([400, 'NVENT_INVALID'])
      expect(await answer('runs?cursor=x')).toEqual([400, 'NVENT_INVALID'])
      expect(await answer('run?flow=none&id=1')).toEqual([404, 'NVENT_NOT_FOUND'])
      expect(await answer('constructor')).toEqual([404, 'Not Found'])
    })

    test('it fits a phone, and follows light and dark', async () => {
      const id = await declined()
      await page.setViewportSize({ width: 360, height: 740 })
      for (const hash of ['#/runs', `#/runs/order/${id}`, '#/jobs', '#/jobs/orders', '#/consumers', '#/consumers/mailer']) {
        await go(hash)
        await page.waitForSelector(hash.split('/').length > 2 ? '.opened .detail:visible' : '.list:visible')
        expect(await page.evaluate(() => document.documentElement.scrollWidth), hash).toBe(360)
      }
      const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
      const light = await background()
      await page.emulateMedia({ colorScheme: 'dark' })
      expect(await background()).not.toBe(light)
      await page.getByRole('button', { name: /light and dark/ }).click()
      expect(await background()).toBe(light)
    }, 60_000)

    test('it says when the server is away, and goes on when it is back', async () => {
      await server.stop('SIGKILL')
      await page.waitForSelector('[data-live=false]')
      server = await app().start({ NUXT_NVENT_CONNECTIONS_FILE_DATA_DIR: dir, PORT: server.port })
      await page.waitForSelector('[data-live=true]')
      // The browser says itself that it could not connect.
      for (const error of errors.splice(0)) expect(error).toMatch(/ERR_|Failed to load resource/)
    }, 60_000)
  })
}

/** Fills a store as a busy app would leave it. */
async function fill(dataDir: string) {
  const store = new FileStoreAdapter({ dataDir, bus: null })
  const begin = Date.now() - RUNS * 1_000
  for (let n = 0; n < RUNS; n += 10_000) {
    await Promise.all(Array.from({ length: 10_000 }, (_, i) => {
      const startedAt = begin + (n + i) * 1_000
      const status = (n + i) % FAILED === 50 ? 'failed' : 'completed'
      return store.index.add('nq:flows:order', idOf(n + i), startedAt, {
        status, flowName: 'order', startedAt, completedAt: startedAt + 2_000, stepCount: 5, completedSteps: status === 'failed' ? 2 : 5,
        ...status === 'failed' ? { error: 'The card was declined' } : {},
      })
    }))
  }
  await store.index.add('nq:flows:order', 'with-markup', begin - 1, { status: 'completed', startedAt: begin })
  await store.append('nq:flow:with-markup', { type: 'flow.start', runId: 'with-markup', flowName: 'order', data: { input: {} } })
  await store.append('nq:flow:with-markup', { type: 'log', data: { message: MARKUP } })
  await store.append('nq:flow:with-markup', { type: 'large', data: { text: 'x'.repeat(200_000) } })
  await store.append('nq:flow:with-markup', { type: 'flow.completed', runId: 'with-markup', flowName: 'order' })
  for (const n of [1, 2]) await store.append('mail', { type: 'mail.due', data: { n } })
  const consumer = await store.consume('mailer', () => { throw new Error('the mail server is away') }, { subjects: 'mail', from: 'beginning', attempts: 1 })
  await eventually(async () => consumer.stats().parked === 2, 'parked events')
  await store.close()
}
