import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FileQueueAdapter, FileStoreAdapter } from 'nvent-native'
import { App, eventually, type Built } from './app.js'
import { settings } from './settings.js'
import { RedisServer } from '../support/redis.js'

const SLOW = 600_000

describe('the start and the end of a server', () => {
  let app: App, built: Built
  const data = (...path: string[]) => join(built.home, ...path)

  beforeAll(async () => {
    app = await App.create('start')
    built = await app.build()
  }, SLOW)
  afterAll(async () => {
    await built?.remove()
    await app?.remove()
  })

  test('routes that the build rendered used adapters in memory, and nothing was opened, started or left on disk', async () => {
    const rendered = JSON.parse(await readFile(data('app/public/api/rendered'), 'utf8'))
    expect(rendered).toMatchObject({ backend: 'memory', opened: 0 })
    expect(existsSync(join(app.dir, '.data'))).toBe(false)
  })

  test('at the end everything is closed, after what the application does in its own hooks', async () => {
    const server = await built.start()
    expect(await server.get('/api/state')).toEqual({ closing: null, received: 'webhook:r' })
    expect(await server.stop('SIGTERM')).toBe(0)
    expect(server.output).toContain('the application closed\nthe directory is free')
    expect(server.output).not.toContain('NVENT_')
    const next = await built.start()
    expect((await next.get('/api/state')).closing).toBe(server.pid)
    await next.stop()
  })

  test('the folders follow a variable that the build did not know', async () => {
    const server = await built.start({ NUXT_NVENT_CONNECTIONS_FILE_DATA_DIR: 'elsewhere', NUXT_NVENT_STORE_ADAPTR: 'x' })
    await server.get('/api/state')
    expect([existsSync(data('elsewhere/store')), existsSync(data('elsewhere/queue'))]).toEqual([true, true])
    expect(server.output).toContain('NUXT_NVENT_STORE_ADAPTR is not an option: did you mean NUXT_NVENT_STORE_ADAPTER?')
    await server.stop('SIGKILL')
  })

  test('wrong values of variables end the process, which names every one', async () => {
    const { moduleSchema, nventSchema } = await import('../../dist/nuxt/schema.js')
    const wrong = [...settings('nvent', nventSchema), ...settings('nventNative', moduleSchema)].filter(({ wrong, isBuilt }) => wrong !== undefined && !isBuilt)
    expect(wrong.length).toBeGreaterThan(50)
    const failure: Error = await built.start(Object.fromEntries(wrong.map(({ variable, wrong }) => [variable, wrong!]))).then(() => new Error('it started'), error => error)
    expect(failure.message).toMatch(/exited with 1 .*wrong options:/s)
    expect(wrong.map(({ variable }) => variable).filter(variable => !failure.message.includes(`- ${variable}: `))).toEqual([])
  })

  test('where the application fails in nvent:adapters:ready, everything is closed, once, and requests are answered with the cause', async () => {
    const server = await built.start({ FAIL_READY: '1' })
    for (let n = 0; n < 3; n++) await expect(server.get('/api/state')).rejects.toThrow(/503 .*the adapters are not open: the application failed/s)
    expect(server.output.match(/ready \d/g)).toEqual(['ready 1'])
    const store = new FileStoreAdapter({ dataDir: data('.data/store') })
    await store.init()
    await store.close()
    expect(await server.stop('SIGTERM')).toBe(0)
  })

  test('where one adapter cannot be opened, none of the others stays open, and it is said once', async () => {
    const holder = new FileQueueAdapter({ dataDir: data('.data/queue') })
    await holder.init()
    const server = await built.start({ NUXT_NVENT_NATIVE_OPEN_TIMEOUT: '0', NODE_DEBUG: 'nvent' })
    await eventually(async () => server.output.split('the file store is open').length > 3, 'several attempts')
    expect(server.output.match(/cannot open the adapters yet: .*NVENT_LOCKED.*Trying again/g)).toHaveLength(1)
    await eventually(async () => {
      const store = new FileStoreAdapter({ dataDir: data('.data/store') })
      return store.init().then(() => true, () => false).finally(() => store.close())
    }, 'the free directory of the store')
    await holder.close()
    await eventually(async () => server.output.includes('the adapters are open'), 'the opening')
    await server.get('/api/state')
    await server.stop()
  })

  test('what is scheduled runs once another process has freed the directory, without a request', async () => {
    const holder = new FileStoreAdapter({ dataDir: data('.data/store') })
    await holder.init()
    const server = await built.start({ EACH_SECOND: '1' })
    await eventually(async () => server.output.includes('NVENT_LOCKED'), 'the first attempt')
    expect(server.output).not.toContain('a job ran')
    await holder.close()
    await eventually(async () => server.output.includes('a job ran'), 'the job')
    await server.stop()
  })

  test('where Redis is down it opens once Redis is there, without a request, and says so in a line each', async () => {
    let redis = await RedisServer.start()
    await redis.stop()
    const server = await built.start({ NUXT_NVENT_STORE_ADAPTER: 'redis', NUXT_NVENT_STORE_REDIS_PORT: String(redis.port), NUXT_NVENT_QUEUE_ADAPTER: 'memory' })
    const said = (line: RegExp) => server.output.split('\n').filter(text => line.test(text))
    const failed = /cannot open the adapters yet: .*NVENT_UNAVAILABLE.*Trying again until it succeeds/
    await eventually(async () => said(failed).length > 0, 'the first attempt')
    redis = await RedisServer.start(redis.port)
    await eventually(async () => said(/the adapters are open, \d+\.\d s after the start/).length > 0, 'the opening')
    expect([said(failed).length, said(/cannot open/).length, said(/are open/).length]).toEqual([1, 1, 1])
    await eventually(async () => server.output.includes('ready 1'), 'what the application does once they are open')
    await server.stop('SIGKILL')
    await redis.stop()
  })
})

describe('a preset', () => {
  const build = async (preset: string) => {
    const app = await App.create('reload', { config: `{ modules: ['nvent-native'], nitro: { preset: '${preset}' }, compatibilityDate: '2025-07-01' }` })
    const output = await app.nuxi('build').then(({ stdout, stderr }) => `built ${stdout}${stderr}`, error => `${error.stdout}${error.stderr}`)
    await app.remove()
    return output
  }

  test('for edge runtimes fails the build, and says what to do', async () => {
    const output = await build('cloudflare-pages')
    expect(output).not.toContain('built ')
    expect(output).toContain(`cannot run on the Nitro preset 'cloudflare-pages'`)
    expect(output).toContain('preset node-server')
  }, SLOW)

  test('of a serverless platform warns where files are used', async () => {
    const output = await build('aws-lambda')
    expect(output).toContain('built ')
    expect(output).toContain(`preset 'aws-lambda' is serverless`)
    expect(output).toContain('nvent.store.adapter and nvent.queue.adapter')
  }, SLOW)
})
