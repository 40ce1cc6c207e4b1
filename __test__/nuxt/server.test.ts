/** How the adapters and the wiring begin and end with a server, by the hooks of Nitro, without an app that is built. */
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { createHooks } from 'hookable'
import { createStreamCoordinator, MemoryStoreAdapter, MemoryStreamAdapter, useQueueAdapter, useStoreAdapter } from 'nvent-native'
import { afterEach, describe, expect, test } from 'vitest'
import { gate, until } from '../support/until.js'
import { bundled } from './bundle.js'

const memory = { store: { adapter: 'memory' }, queue: { adapter: 'memory' }, stream: { adapter: 'memory' } }
const config = (section: object, options: object, withNvent: boolean) => `
  export const useRuntimeConfig = () => (${JSON.stringify({ nventNative: { options, section, packages: {}, withNvent }, nvent: section })})`

const servers: Array<{ end: () => Promise<void> }> = []
const ends: Array<() => unknown> = []
afterEach(async () => {
  for (const hooks of servers.splice(0)) await hooks.end()
  for (const end of ends.splice(0)) await end()
})
const dir = async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'nvent-server-'))
  ends.push(() => rm(dataDir, { recursive: true }))
  return dataDir
}
/** Returns the hooks of a server, and what ends it, once. */
const nitroHooks = (): any => {
  let ended: Promise<void> | undefined
  const hooks: any = Object.assign(createHooks(), { end: () => ended ??= hooks.callHook('close') })
  servers.push(hooks)
  return hooks
}
/** Returns a folder that no adapter can open: it is a file. */
const unusable = async () => {
  const file = join(await dir(), 'file')
  await writeFile(file, '')
  return file
}
/** A server is closed once nothing has used it for so long, in ms. */
const QUIET_DELAY = 250
const turn = () => new Promise(resolve => setImmediate(resolve))

describe('without nvent', () => {
  const server = async (section: object = memory, { options = {}, prerender = false, listen = (_: any) => {} } = {}) => {
    const hooks = nitroHooks()
    const { default: plugin } = await bundled('standalone.js', {
      '#imports': config(section, options, false),
      '#nvent-native/triggers': 'export const triggers = []', '#nvent-native/webhooks': 'export const webhooks = []',
    }, false, prerender)
    plugin({ hooks })
    // As plugins of the application do, which come after.
    listen(hooks)
    return hooks
  }

  test('a request waits until the application is ready, and everything ends after the application, in order', async () => {
    const calls: string[] = []
    const stored = (name: string) => async () => {
      await useStoreAdapter().append('s', { type: name })
      calls.push(name)
    }
    let options: any, context: any
    const hooks = await server(memory, {
      options: { coordinator: { enableStoreSync: false } },
      listen: (hooks) => {
        hooks.hook('nvent:wiring', async (given: any) => {
          options = { ...given }
          await turn()
          const start = async () => {
            for (let n = 0; n < 5; n++) await turn()
            await stored('wiring')()
          }
          given.wirings = [{ start, stop: stored('wiring stopped') }]
        })
        hooks.hook('nvent:adapters:ready', async (given: any) => {
          context = given
          await turn()
          calls.push('ready')
          given.queue.registerWorker('q', 'job', async () => {
            calls.push('job')
            await turn()
            await stored('job ended')()
          })
          given.queue.startProcessingQueue('q')
        })
        hooks.hook('close', async () => {
          await useQueueAdapter().enqueue('q', { name: 'job', data: 1 })
          await until('the job', () => calls.includes('job'))
          calls.push('the application closed')
        })
      },
    })
    await hooks.callHook('request')
    expect(calls).toEqual(['wiring', 'ready'])
    expect(options).toMatchObject({ streamCoordinator: { enableStoreSync: false }, triggers: [], webhooks: [], store: context.store, stream: context.stream, queue: context.queue })
    expect([context.store, context.queue]).toEqual([useStoreAdapter(), useQueueAdapter()])
    expect(Object.keys(context.wiring.stats()).sort()).toEqual(['flow', 'streamCoordinator', 'triggers', 'webhooks'])
    await hooks.end()
    expect(calls.slice(2).sort()).toEqual(['job', 'job ended', 'the application closed', 'wiring stopped'].sort())
    expect(calls.indexOf('wiring stopped')).toBeGreaterThan(calls.indexOf('job ended'))
    expect(calls.indexOf('wiring stopped')).toBeGreaterThan(calls.indexOf('the application closed'))
    for (const use of [context.store.append('s', { type: 'a' }), context.stream.publish('t', { type: 'a', data: 1 }), context.queue.enqueue('q', { name: 'n', data: 1 })]) {
      await expect(use).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
    }
  })

  test('an adapter that is asked for before the first attempt to open has ended is answered 503', async () => {
    const { Startup, useStoreAdapter } = await bundled(['startup.js', 'composables.js'], {})
    const startup = Startup.current = new Startup({ hooks: nitroHooks() })
    expect(useStoreAdapter).toThrow(expect.objectContaining({ code: 'NVENT_UNAVAILABLE', statusCode: 503, retryable: true }))
    startup.ready()
    expect(useStoreAdapter).toThrow(expect.objectContaining({ code: 'NVENT_NOT_FOUND' }))
  })

  test('where the application fails when the adapters are open, these are closed, and requests go on', async () => {
    let context: any
    const hooks = await server(memory, {
      listen: hooks => hooks.hook('nvent:adapters:ready', (given: any) => {
        context = given
        throw new Error('on purpose')
      }),
    })
    await hooks.callHook('request')
    await expect(context.store.append('s', { type: 'a' })).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
    await expect(context.queue.enqueue('q', { name: 'n', data: 1 })).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
  })

  test('a server that ends while it cannot open its adapters ends at once', async () => {
    const hooks = await server({ ...memory, store: { adapter: 'file', file: { dataDir: await unusable() } } }, { options: { openTimeout: 3_600_000 } })
    const request = hooks.callHook('request')
    await hooks.end()
    await request
  })

  test('it opens as soon as it can, and requests wait until then, but no longer than openTimeout', async () => {
    for (const openTimeout of [1, 3_600_000]) {
      const dataDir = await unusable()
      const ready: unknown[] = []
      const hooks = await server({ ...memory, store: { adapter: 'file', file: { dataDir } } }, {
        options: { openTimeout }, listen: hooks => hooks.hook('nvent:adapters:ready', () => void ready.push(1)),
      })
      const request = hooks.callHook('request')
      if (openTimeout === 1) {
        await request
        expect(ready).toEqual([])
      }
      await rm(dataDir)
      await (openTimeout === 1 ? until('the opening', () => ready.length) : request)
      expect(ready).toEqual([1])
      await hooks.end()
    }
  })

  test('openTimeout of the environment comes before that of the build', async () => {
    process.env['NUXT_NVENT_NATIVE_OPEN_TIMEOUT'] = '1'
    try {
      const hooks = await server({ ...memory, store: { adapter: 'file', file: { dataDir: await unusable() } } }, { options: { openTimeout: 3_600_000 } })
      await hooks.callHook('request')
    }
    finally {
      delete process.env['NUXT_NVENT_NATIVE_OPEN_TIMEOUT']
    }
  })

  test('routes that are rendered during the build have adapters in memory, and no wiring', async () => {
    const calls: string[] = []
    const hooks = await server({ store: { adapter: 'file', file: { dataDir: '/nowhere/to/be/made' } } }, {
      prerender: true, listen: hooks => hooks.hook('nvent:wiring', () => calls.push('wiring')),
    })
    await hooks.callHook('request')
    expect([(await useStoreAdapter().health()).backend, calls]).toEqual(['memory', []])
  })
})

describe('beside nvent', () => {
  const server = async (section: object, { options = {}, prerender = false, dev = false } = {}) => {
    const hooks = nitroHooks()
    const registered: Record<string, Record<string, any>> = { Store: {}, Stream: {}, Queue: {} }
    Object.assign(globalThis, { registered })
    const { default: plugin } = await bundled('with-nvent.js', {
      '#imports': `${config(section, options, true)}
        const { registered } = globalThis
        export const useStreamAdapter = () => registered.Stream['native-memory']
        ${Object.keys(registered).map(kind => `export const register${kind}Adapter = (name, adapter) => { registered.${kind}[name] = adapter }`).join('\n')}`,
    }, dev, prerender)
    plugin({ hooks })
    return { hooks, registered }
  }
  /** Returns a server whose adapters and wiring have started. */
  const started = async () => {
    const { hooks, registered } = await server(memory)
    await hooks.callHook('nvent:register-adapters')
    await hooks.callHook('nvent:adapters:ready')
    return { hooks, registered }
  }
  const names = (adapters: Record<string, unknown>) => Object.keys(adapters).sort()

  test.each([[true, ['file', 'memory', 'native-file', 'native-memory', 'native-redis', 'redis']], [false, ['native-file', 'native-memory', 'native-redis']]])('replace: %s registers them, after all others', async (replace, all) => {
    const { hooks, registered } = await server(memory, { options: { replace } })
    hooks.hook('nvent:register-adapters', () => void (registered['Store']!['memory'] = 'of another package'))
    await hooks.callHook('nvent:register-adapters')
    expect(names(registered['Store']!)).toEqual([...new Set([...all, 'memory'])].sort())
    expect(registered['Store']!['memory'] === 'of another package').toBe(!replace)
    expect(names(registered['Queue']!)).toEqual(all.filter(name => !name.endsWith('redis')))
  })

  test('only the chosen adapters are opened, before nvent uses them', async () => {
    const [dataDir, other] = [join(await dir(), 'store'), join(await dir(), 'queue')]
    const { hooks, registered } = await server({ ...memory, store: { adapter: 'file', file: { dataDir } }, queue: { adapter: 'memory', file: { dataDir: other } } })
    await hooks.callHook('nvent:register-adapters')
    expect([(await readdir(dataDir)).length > 0, existsSync(other)]).toEqual([true, false])
    expect((await registered['Store']!['native-file'].health()).ok).toBe(true)
  })

  test('what is enqueued waits for the wiring, and workers run once all are registered', async () => {
    const { hooks, registered } = await server(memory, { options: { openTimeout: 3_600_000 } })
    await hooks.callHook('nvent:register-adapters')
    const queue = registered['Queue']!['memory']
    const calls: string[] = []
    const work = (name: string, opts?: object) => queue.registerWorker(name, 'job', async () => void calls.push(name), opts)
    work('early')
    const enqueued = queue.enqueue('early', { name: 'job', data: 1 }).then(() => calls.push('enqueued'))
    await turn()
    expect(await queue.getJobCounts('early')).toMatchObject({ waiting: 0 })
    let requested = false
    const request = hooks.callHook('request').then(() => requested = true)
    hooks.hook('nvent:adapters:ready', async () => {
      await enqueued
      for (let n = 0; n < 50; n++) await turn()
      expect([calls, requested]).toEqual([['enqueued'], false])
      work('manual', { autorun: false })
    })
    await hooks.callHook('nvent:adapters:ready')
    await request
    await until('the early one', () => calls.includes('early'))
    work('late')
    await queue.enqueue('manual', { name: 'job', data: 1 })
    await queue.enqueue('late', { name: 'job', data: 1 })
    await until('the late one', () => calls.includes('late'))
    expect(calls).toEqual(['enqueued', 'early', 'late'])
    expect(await queue.getJobCounts('manual')).toMatchObject({ waiting: 1 })
    await queue.resume('manual')
    await until('the manual one', () => calls.includes('manual'))
  })

  test('a server that ends while it cannot open its adapters ends its start; requests wait as long as the environment says', async () => {
    process.env['NUXT_NVENT_NATIVE_OPEN_TIMEOUT'] = '1'
    try {
      const { hooks } = await server({ ...memory, store: { adapter: 'file', file: { dataDir: await unusable() } } }, { options: { openTimeout: 3_600_000 } })
      const ended = expect(hooks.callHook('nvent:register-adapters')).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
      await turn()
      await hooks.callHook('request')
      await hooks.end()
      await ended
    }
    finally {
      delete process.env['NUXT_NVENT_NATIVE_OPEN_TIMEOUT']
    }
  })

  test('a wrong configuration fails the start of nvent, and requests go on in development, where the server stays', async () => {
    const { hooks } = await server({ ...memory, store: { adapter: 'memory', streams: { trim: { maxLen: 'x' } } } }, { options: { openTimeout: 3_600_000 }, dev: true })
    await expect(hooks.callHook('nvent:register-adapters')).rejects.toMatchObject({ code: 'NVENT_INVALID' })
    await hooks.callHook('request')
  })

  test('what the wiring still enqueues at the end is taken', async () => {
    const { hooks, registered } = await started()
    let enqueuing: Promise<unknown> | undefined
    hooks.hook('close', () => {
      enqueuing = (async () => {
        for (let n = 0; n < 10; n++) await pause(QUIET_DELAY / 5).then(() => registered['Queue']!['memory'].enqueue('q', { name: 'n', data: n }))
      })()
    })
    await hooks.end()
    await enqueuing
  })

  test('its close of a queue only drains it; the coordinator, queues, streams and stores end after what the wiring still writes', async () => {
    const { hooks, registered } = await started()
    const [store, stream, queue] = [registered['Store']!['memory'], registered['Stream']!['memory'], registered['Queue']!['memory']]
    const topics: string[] = []
    await stream.subscribe('flow:event:*', (_: unknown, topic: string) => void topics.push(topic))
    let writing: Promise<unknown> | undefined
    hooks.hook('close', async () => {
      await queue.close()
      await queue.enqueue('q', { name: 'n', data: 1 })
      // As the wiring of nvent does, which no hook waits for.
      writing = (async () => {
        for (let n = 0; n < 20; n++) await store.append('s', { type: 'flow.completed', runId: `r${n}`, flowName: 'f' })
      })()
    })
    await hooks.end()
    await writing
    expect(topics).toHaveLength(20)
    for (const use of [store.append('s', { type: 'a' }), stream.publish('t', { type: 'a', data: 1 }), queue.enqueue('q', { name: 'n', data: 1 })]) {
      await expect(use).rejects.toMatchObject({ code: 'NVENT_CLOSED' })
    }
  })

  test.each(['a handler', 'the wiring'])('the coordinator routes what %s still writes', async (who) => {
    const { hooks, registered } = await started()
    const [store, stream, queue] = [registered['Store']!['memory'], registered['Stream']!['memory'], registered['Queue']!['memory']]
    const topics: string[] = []
    await stream.subscribe('flow:event:*', (_: unknown, topic: string) => void topics.push(topic))
    const end = (runId: string) => store.append('s', { type: 'flow.completed', runId, flowName: 'f' })
    if (who === 'a handler') {
      const { opened, open } = gate()
      queue.registerWorker('q', 'slow', async () => {
        open()
        await pause(3 * QUIET_DELAY)
        await end('last')
      })
      await queue.enqueue('q', { name: 'slow', data: 1 })
      await opened
    }
    else {
      hooks.hook('close', () => {
        void (async () => {
          for (let n = 0; n < 30; n++) await pause(QUIET_DELAY / 5).then(() => end(n < 29 ? `r${n}` : 'last'))
        })()
      })
    }
    await hooks.end()
    expect(topics).toContain('flow:event:last')
  })

  test('the coordinator ends with the server', async () => {
    const { hooks } = await started()
    await hooks.end()
    const warnings: Error[] = []
    const note = (warning: Error) => void warnings.push(warning)
    process.on('warning', note)
    const next = new MemoryStreamAdapter()
    const seen: string[] = []
    await next.subscribe('flow:event:*', (_: unknown, topic: string) => void seen.push(topic))
    const coordinator = createStreamCoordinator({ stream: next })
    await coordinator.start()
    const other = new MemoryStoreAdapter()
    await other.append('s', { type: 'flow.completed', runId: 'later', flowName: 'f' })
    await until('another coordinator has it', () => seen.length)
    await turn()
    process.off('warning', note)
    expect(warnings).toEqual([])
    await Promise.all([coordinator.stop(), other.close(), next.shutdown()])
  })

  test('routes that are rendered during the build have adapters in memory, under every name', async () => {
    const { hooks, registered } = await server({ store: { adapter: 'file', file: { dataDir: '/nowhere/to/be/made' } } }, { prerender: true })
    await hooks.callHook('nvent:register-adapters')
    expect(names(registered['Store']!)).toEqual(['file', 'memory', 'native-file', 'native-memory', 'native-redis', 'redis'])
    expect((await registered['Store']!['file'].health()).backend).toBe('memory')
  })
})
