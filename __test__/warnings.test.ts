import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createEventBus, createFlowWiring, createStreamCoordinator, MemoryQueueAdapter, MemoryStoreAdapter, RedisStoreAdapter } from 'nvent-native'
import { describe, expect, it } from 'vitest'
import { runFile } from './support/process'
import { RedisServer } from './support/redis'
import { nextWarning, until } from './support/until'

it('what native code warns about arrives as a warning of the process, with its code, a few of a kind', async () => {
  const store = new MemoryStoreAdapter({ bus: createEventBus() })
  const warnings: any[] = []
  const onWarning = (warning: any): void => void (warning.code === 'NVENT_CONSUMER_PARKED' && warnings.push(warning))
  process.on('warning', onWarning)
  const consumer = await store.consume('c', () => { throw new Error('from the handler') }, { attempts: 1 })
  const first = nextWarning()
  for (let n = 0; n < 20; n++) await store.append(`s${n}`, { type: 'a' })
  expect((await first).name).toBe('NventWarning')
  await until('all are parked', () => consumer.stats().parked === 20)
  await until('warnings arrive', () => warnings.length >= 5)
  expect(warnings).toHaveLength(5)
  expect(warnings[0].message).toMatch(/"s0".* from the handler/)
  process.off('warning', onWarning)
  await store.close()
})

/** Resolves with the first warning whose message matches. */
async function warning(message: RegExp): Promise<{ code: string, message: string }> {
  for (;;) {
    const found: any = await nextWarning()
    if (message.test(found.message)) return found
  }
}

describe('a warning says', () => {
  it('that the connection to Redis was lost, and that it has been restored', async () => {
    const server = await RedisServer.start()
    const store = new RedisStoreAdapter({ bus: null, connection: server.connection })
    await store.append('s', { type: 'x' })
    const lost = warning(/connection to Redis is lost/)
    await server.stop()
    expect((await lost).code).toBe('NVENT_UNAVAILABLE')
    const restored = warning(/connection to Redis has been restored after \d+\.\d s/)
    const again = await RedisServer.start(server.port)
    expect((await restored).code).toBe('NVENT_RECONNECTED')
    await store.append('s', { type: 'x' })
    await store.close()
    await again.stop()
  })

  it('nothing of an outage where a replica refuses a write, as the call says why', async () => {
    const primary = await RedisServer.start()
    const server = await RedisServer.start()
    const store = new RedisStoreAdapter({ bus: null, connection: server.connection })
    const seen: string[] = []
    const onWarning = (one: any): void => void (/connection to Redis/.test(one.message) && seen.push(one.message))
    process.on('warning', onWarning)
    await server.cli('replicaof', '127.0.0.1', String(primary.port))
    for (let n = 0; n < 3; n++) {
      await expect(store.append('s', { type: 'x' })).rejects.toMatchObject({ code: 'NVENT_UNAVAILABLE', retryable: true, message: expect.stringContaining('READONLY') })
    }
    await server.cli('replicaof', 'no', 'one')
    await store.append('s', { type: 'x' })
    // Warnings arrive in their order, so that of a real outage comes after all others.
    const lost = warning(/connection to Redis is lost/)
    await server.stop()
    await lost
    expect(seen).toHaveLength(1)
    process.off('warning', onWarning)
    await store.close()
    await primary.stop()
  })

  it('that a job has failed for good, once it has no attempt left', async () => {
    const queue = new MemoryQueueAdapter()
    const seen: string[] = []
    const onWarning = (one: any): void => void (one.code === 'NVENT_JOB_FAILED' && seen.push(one.message))
    process.on('warning', onWarning)
    const failed = warning(/job "import"/)
    for (const name of ['import', 'recovers']) {
      queue.registerWorker('mail', name, async (job) => {
        if (name === 'import' || job.attemptsMade === 0) throw new Error(`attempt ${job.attemptsMade} of ${name}`)
      })
    }
    await queue.enqueue('mail', { name: 'recovers', data: {}, opts: { attempts: 2 } })
    const jobId = await queue.enqueue('mail', { name: 'import', data: {}, opts: { attempts: 2 } })
    expect(await failed).toMatchObject({ code: 'NVENT_JOB_FAILED', message: `job "import" of queue "mail" has failed for good (attempts: 2, id "${jobId}"): attempt 1 of import` })
    await until('the other one completes', async () => (await queue.getJobCounts('mail')).completed === 1)
    expect(seen).toHaveLength(1)
    process.off('warning', onWarning)
    await queue.close()
  })

  it('that an event of a run was published where nothing takes it', async () => {
    const seen: string[] = []
    const onWarning = (one: any): void => void (one.code === 'NVENT_EVENT_LOST' && seen.push(one.message))
    process.on('warning', onWarning)
    const lost = warning(/"second"/)
    const bus = createEventBus()
    const store = new MemoryStoreAdapter({ bus })
    // Neither is lost: one is stored already, the other of no run.
    bus.publish({ id: '1-0', ts: 1, type: 'stored', runId: 'r' })
    bus.publish({ type: 'of no run' })
    const stop = bus.onType('first', () => {})
    bus.publish({ type: 'first', runId: 'r' })
    stop()
    bus.publish({ type: 'second', runId: 'r' })
    expect(await lost).toMatchObject({ code: 'NVENT_EVENT_LOST', message: 'an event of type "second" of run "r" was published on a bus where no flow wiring stores it' })
    const wiring = createFlowWiring({ bus, store })
    await wiring.start()
    bus.publish({ type: 'third', runId: 'r' })
    await wiring.stop()
    expect((await store.read('nq:flow:r')).map(event => event.type)).toEqual(['third'])
    expect(seen).toHaveLength(1)
    process.off('warning', onWarning)
    await store.close()
  })

  it('that a wiring tries again, once for a series of attempts', async () => {
    const unavailable = (what: string): Error => Object.assign(new Error(what), { code: 'NVENT_UNAVAILABLE', retryable: true })
    let refusals = 3
    const bus = createEventBus()
    const inner = new MemoryStoreAdapter({ bus: null })
    const store = { append: async (subject: string, event: any) => {
      if (refusals-- > 0) throw unavailable('the store is restarting')
      return inner.append(subject, event)
    }, read: (subject: string) => inner.read(subject) }
    const flow = createFlowWiring({ bus, store: store as any })
    await flow.start()
    const seen: string[] = []
    const onWarning = (one: any): void => void seen.push(one.message)
    process.on('warning', onWarning)
    const repeated = warning(/flow wiring tries again/)
    bus.publish({ type: 'step.completed', runId: 'r' })
    expect(await repeated).toMatchObject({ code: 'NVENT_UNAVAILABLE', message: expect.stringContaining('the store is restarting') })
    await flow.stop()
    expect(await inner.read('nq:flow:r')).toHaveLength(1)
    expect(seen.filter(message => message.includes('flow wiring tries again'))).toHaveLength(1)

    const publishesAgain = warning(/the coordinator publishes again/)
    refusals = 2
    const coordinator = createStreamCoordinator({ bus, stream: { publish: async () => {
      if (refusals-- > 0) throw unavailable('the stream is restarting')
    } } as any })
    await coordinator.start()
    bus.publish({ id: '1-0', ts: 1, type: 'x', runId: 'r' })
    expect(await publishesAgain).toMatchObject({ code: 'NVENT_UNAVAILABLE', message: expect.stringContaining('the stream is restarting') })
    await coordinator.stop()
    process.off('warning', onWarning)
  })
})

it('NODE_DEBUG=nvent prints what opens and closes, a hundred lines in a second, and nothing is printed without it', async () => {
  const env = { ...process.env, NODE_DEBUG: '' }
  expect(await runFile('fixtures/prints-much.mjs', [], { env })).toMatchObject({ code: 0, stdout: '', stderr: '' })
  const { code, stderr } = await runFile('fixtures/prints-much.mjs', [], { env: { ...env, NODE_DEBUG: 'nvent' } })
  expect(code).toBe(0)
  const lines = stderr.trim().split('\n').map(line => line.replace(/^NVENT \d+: /, ''))
  expect(lines.slice(0, 2)).toEqual(['the memory store is open', 'the memory store is closed'])
  const omitted = lines.map(line => Number(/^(\d+) lines were left out/.exec(line)?.[1] ?? 0))
  const printed = lines.length - omitted.filter(count => count > 0).length
  expect(printed + omitted.reduce((sum, count) => sum + count, 0)).toBe(600)
  expect(printed).toBeLessThan(600)
})

it('docs/warnings.md lists every code that is warned about, and no other', () => {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const source = ['src', 'lib', 'nuxt'].flatMap(folder => readdirSync(`${root}/${folder}`, { recursive: true, encoding: 'utf8' }).map(file => `${root}/${folder}/${file}`))
    .filter(file => /\.(rs|ts)$/.test(file)).map(file => readFileSync(file, 'utf8')).join('\n')
  const warned = [
    /tracing::(?:warn|error)!\(\s*code = "(NVENT_\w+)"/g, /DEFAULT_CODE: &str = "(NVENT_\w+)"/g, /warn(?:Once|Limited)\('(NVENT_\w+)'/g, /type: 'NventWarning', code: '(NVENT_\w+)'/g,
  ].flatMap(pattern => [...source.matchAll(pattern)].map(([, code]) => code!))
  const listed = [...readFileSync(`${root}/docs/warnings.md`, 'utf8').matchAll(/^\| `(NVENT_\w+)` \|/gm)].map(([, code]) => code!)
  expect(listed).toEqual([...new Set(warned)].sort())
  // A warning without a code cannot be distinguished from another.
  expect(source.match(/tracing::(warn|error)!\((?![^;]*\bcode = )[^;]*;/g) ?? []).toEqual([])
})
