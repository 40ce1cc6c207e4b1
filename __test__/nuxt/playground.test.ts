/// <reference lib="dom" />
import { mkdtemp, rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { chromium, type BrowserContext, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { App, type Built, type Server } from './app.js'
import { chromiumPath, FLAGS } from './browser.js'
import { inspector } from './inspector.js'

const PLAYGROUND = fileURLToPath(new URL('../../playground', import.meta.url))

describe('the playground in a browser', () => {
  let app: App, built: Built, server: Server, profile: string, browser: BrowserContext, page: Page
  const errors: string[] = []

  beforeAll(async () => {
    app = await App.create(PLAYGROUND)
    built = await app.build()
    server = await built.start()
    profile = await mkdtemp(join(tmpdir(), 'nvent-browser-'))
    browser = await chromium.launchPersistentContext(profile, { executablePath: await chromiumPath(), headless: true, args: FLAGS })
    browser.setDefaultTimeout(30_000)
    page = await open()
  }, 240_000)
  afterAll(async () => {
    await browser?.close()
    await server?.stop('SIGKILL')
    await built?.remove()
    await app?.remove()
    if (profile) await rm(profile, { recursive: true, force: true })
  })
  afterEach(() => expect(errors.splice(0), 'errors in the page').toEqual([]))

  test('an order lights its steps up one by one and completes', async () => {
    // A lamp may be lit for too short a time to be waited for, so the page itself takes note.
    await page.evaluate(() => {
      const lit = new Set<string>()
      Object.assign(window, { lit })
      const note = () => document.querySelectorAll<HTMLElement>('[data-step].lit').forEach(lamp => lit.add(lamp.dataset['step']!))
      new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true })
    })
    await page.click('[data-start=one]')
    await page.waitForSelector('.run[data-status=completed]')
    await waitForNumber(page, '.run .lamps .done', 5)
    const lit = await page.evaluate(() => [...(window as unknown as { lit: Set<string> }).lit])
    expect(lit.toSorted()).toEqual(['charge', 'notify', 'reserve', 'ship', 'validate'])
    await page.waitForFunction(() => document.querySelector('[data-total=completed]')?.textContent === '1')
    for (const channel of ['store-sync', 'flow', 'client']) {
      expect(Number(await page.textContent(`[data-channel=${channel}] output`))).toBeGreaterThan(0)
    }
    expect(await page.textContent('[data-figure=latency]')).toMatch(/µs|ms/)
  }, 60_000)

  test('a second tab sees the same, also what the first one starts', async () => {
    const second = await open()
    expect(await runs(second)).toEqual(await runs(page))
    await page.click('[data-start=one]')
    for (const tab of [page, second]) await completed(tab, 2)
    expect(await runs(second)).toEqual(await runs(page))
    await second.close()
  }, 60_000)

  test('the page works with the keyboard alone', async () => {
    await page.locator('[data-start=one]').focus()
    await page.keyboard.press('Enter')
    await completed(page, 3)
    await page.locator('.run .head').first().focus()
    await page.keyboard.press('Space')
    await page.waitForSelector('.timeline .step')
    await page.keyboard.press('Space')
    await waitForNumber(page, '.timeline', 0)
    await page.locator('#many').focus()
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowLeft')
    expect(await page.textContent('[data-start=many]')).toBe('Start 70')
  }, 60_000)

  test('a run is opened: its steps as bars, its events, its error; it is started again and completes', async () => {
    await page.click('[data-start=declined]')
    await page.waitForSelector('.run[data-status=failed]')
    await page.locator('.run[data-status=failed] .head').click()
    await page.waitForSelector('.timeline[data-status=failed]')
    expect(await page.textContent('.timeline .error')).toBe('The card was declined')
    await waitForNumber(page, '.timeline .step b.step-failed', 3)
    await waitForNumber(page, '.timeline .step b.step-completed', 2)
    await page.locator('.timeline summary').click()
    await page.locator('.timeline ol button').last().click()
    expect(await page.textContent('.timeline pre')).toContain('flow.failed')
    await page.click('[data-act=retry]')
    await page.waitForSelector('.timeline[data-status=completed]')
    await waitForNumber(page, '.timeline .step b.step-completed', 5)
    await page.locator('.run[aria-expanded=true], .head[aria-expanded=true]').click()
    await completed(page, 4)
  }, 60_000)

  test('a run is cancelled', async () => {
    await page.click('[data-start=slow]')
    await page.locator('.run[data-status=running] .head').click()
    await page.click('[data-act=cancel]')
    await page.waitForSelector('.run[data-status=canceled]')
    await page.waitForSelector('.timeline[data-status=canceled]')
    await page.locator('.head[aria-expanded=true]').click()
  }, 60_000)

  test('while the server is away the page says so; when it is back, the page is too, with every order', async () => {
    const before = await runs(page)
    const { port } = server
    expect(await server.stop('SIGTERM')).toBe(0)
    await page.waitForSelector('[data-connection=away]')
    await page.waitForSelector('[role=alert]')
    expect(await page.isDisabled('[data-start=one]')).toBe(true)
    server = await built.start({ PORT: port })
    await page.waitForSelector('[data-connection=live]')
    expect(await runs(page)).toEqual(before)
    await page.reload()
    await page.waitForSelector('[data-connection=live]')
    expect(await runs(page)).toEqual(before)
  }, 60_000)

  test('a hundred orders, the server killed in the middle: each is completed exactly once', async () => {
    await page.locator('#many').fill('100')
    await page.click('[data-start=many]')
    await page.locator('.run[data-status=running] .head').first().click()
    await page.waitForSelector('.timeline .step')
    await page.waitForSelector('[data-step=ship].lit')
    await server.stop('SIGKILL')
    await page.waitForSelector('[data-connection=away]')
    server = await built.start({ PORT: server.port })
    await page.waitForFunction(() => document.querySelector('[data-total=completed]')?.textContent === '104' && document.querySelector('[data-total=running]')?.textContent === '0', undefined, { timeout: 60_000 })
    const all = await server.get<{ id: string, status: string }[]>('/api/runs?limit=200')
    expect(all).toHaveLength(105)
    // The page has ended right by itself, also the run that is open.
    await page.waitForSelector('.timeline[data-status=completed]')
    await waitForNumber(page, '.timeline .step b.step-completed', 5)
    await waitForNumber(page, '.run[data-status=completed]', 20)
    for (const { id, status } of all) {
      if (status === 'canceled') continue
      const events = await server.get<{ type: string, step?: string }[]>(`/api/runs/${id}`)
      expect(events.filter(event => event.type === 'flow.completed'), id).toHaveLength(1)
      const steps = events.filter(event => event.type === 'step.completed').map(event => event.step)
      expect(steps.toSorted(), id).toEqual(['charge', 'notify', 'reserve', 'ship', 'validate'])
    }
  }, 120_000)

  test('it fits a phone, and follows light and dark', async () => {
    await page.setViewportSize({ width: 360, height: 740 })
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360)
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    await page.emulateMedia({ colorScheme: 'light' })
    const light = await background()
    await page.emulateMedia({ colorScheme: 'dark' })
    expect(await background()).not.toBe(light)
    await page.getByRole('button', { name: /light and dark/ }).click()
    expect(await background()).toBe(light)
  }, 60_000)

  inspector(() => built)

  async function open() {
    const page = await browser.newPage()
    page.on('pageerror', error => errors.push(error.message))
    await page.goto(server.url)
    await page.waitForSelector('[data-connection=live]')
    return page
  }

  const runs = (page: Page) => page.locator('.run').evaluateAll(list => list.map(run => [run.getAttribute('data-run'), run.getAttribute('data-status')]))
  /** Waits until as many elements match. */
  const waitForNumber = (page: Page, selector: string, count: number) =>
    page.waitForFunction(([selector, count]) => document.querySelectorAll(selector).length === count, [selector, count] as const)
  const completed = (page: Page, count: number) => waitForNumber(page, '.run[data-status=completed]', count)
})
