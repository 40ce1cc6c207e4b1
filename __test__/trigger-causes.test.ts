import { setImmediate as turn } from 'node:timers/promises'
import { createEventBus, createTriggerWiring, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter } from 'nvent-native'
import type { TriggerDefinition, TriggerWiring } from 'nvent-native'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { causeSubject } from '../lib/trigger/names'
import { rejects, until } from './support/until'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

let store: MemoryStoreAdapter
let queue: MemoryQueueAdapter
let wiring: TriggerWiring
beforeEach(() => {
  store = new MemoryStoreAdapter({ bus: createEventBus() })
  queue = new MemoryQueueAdapter()
})
afterEach(async () => {
  vi.useRealTimers()
  vi.restoreAllMocks()
  await wiring?.stop()
  await queue.close()
  await store.close()
})

const flows = [defineFlow('job', { only: { run: () => {} } })]
const triggersOf = (...triggers: TriggerDefinition[]): TriggerWiring => wiring = createTriggerWiring({ store, queue, flows, triggers })
const causes = async (): Promise<string[]> => (await store.index.read('nq:trigger-causes', { limit: 2_000 })).map(({ id }) => id)

it('what was fired by hand is forgotten a day after it was last asked for', async () => {
  let now = Date.now()
  vi.spyOn(Date, 'now').mockImplementation(() => now)
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  await triggersOf({ id: 'hand', on: { manual: true }, start: 'job' }).start()
  // More than are read at a time.
  const old = await Promise.all(Array.from({ length: 1_010 }, (_, n) => wiring.fire('hand', n, { idempotencyKey: `old ${n}` })))
  now += 23 * HOUR
  const { runIds } = await wiring.fire('hand', 0, { idempotencyKey: 'new' })
  expect(await wiring.fire('hand', 0, { idempotencyKey: 'old 0' })).toEqual({ runIds: old[0]!.runIds, created: false })
  now += HOUR + 1
  // What was stored while no instance was there is fired first.
  vi.advanceTimersByTime(10 * MINUTE - 1)
  expect(await causes()).toHaveLength(1_011)
  vi.advanceTimersByTime(1)
  while ((await causes()).length > 2) await turn()
  expect((await store.subjects('nq:trigger-cause:*')).subjects.toSorted()).toEqual((await causes()).toSorted())
  expect(await wiring.fire('hand', 0, { idempotencyKey: 'new' })).toEqual({ runIds, created: false })
  now += 24 * HOUR + 1
  while ((await causes()).length > 0) {
    vi.advanceTimersByTime(MINUTE)
    await turn()
  }
  expect((await store.subjects('nq:trigger-cause:*')).subjects).toEqual([])
})

it('what is recorded of a firing, and of the end of a chain, is stored through an outage', async () => {
  await triggersOf({ id: 'go', on: { event: 'go' }, start: 'job' }).start()
  const append = store.stream.append.bind(store.stream)
  const failed: string[] = []
  store.stream.append = async (subject, event, opts) => {
    if (subject !== 'nq:trigger:go' || failed.includes(event.type)) return append(subject, event, opts)
    failed.push(event.type)
    throw Object.assign(new Error('the connection failed'), { code: 'NVENT_UNAVAILABLE', retryable: true })
  }
  await append('s', { type: 'go' })
  await append('s', { type: 'go', trigger: { depth: 32 } })
  const history = await until('both are recorded', async () => {
    const events = await store.read('nq:trigger:go')
    return events.length === 2 ? events : undefined
  })
  expect(history.map(({ type }) => type).sort()).toEqual(failed.sort())
  await until('they are counted', () => wiring.stats().depth === 1)
  expect(wiring.stats()).toMatchObject({ fired: 1, started: 1, depth: 1, failed: 2 })
})

it('a cause that cannot be recorded is not fired', async () => {
  await triggersOf({ id: 'hand', on: { manual: true }, start: 'job' }).start()
  const add = store.index.add.bind(store.index)
  store.index.add = async () => {
    throw Object.assign(new Error('no room'), { code: 'NVENT_IO' })
  }
  await rejects(wiring.fire('hand', 1, { idempotencyKey: 'k' }), 'NVENT_IO', /no room/)
  expect((await store.subjects('nq:trigger-cause:*')).subjects).toEqual([])
  store.index.add = add
  expect(await wiring.fire('hand', 1, { idempotencyKey: 'k' })).toMatchObject({ created: true })
})

it('a start that cannot read the due time of a schedule rejects, leaves nothing at work, and can be repeated', async () => {
  const get = store.kv.get.bind(store.kv)
  store.kv.get = async (key: string) => {
    if (key.startsWith('nq:trigger-due:')) throw Object.assign(new Error('not readable'), { code: 'NVENT_IO' })
    return get<any>(key)
  }
  triggersOf({ id: 'hourly', on: { schedule: '0 * * * *' }, start: 'job' }, { id: 'hand', on: { manual: true }, start: 'job' })
  await rejects(wiring.start() as Promise<void>, 'NVENT_IO', /not readable/)
  await rejects(wiring.fire('hand'), 'NVENT_CLOSED')
  expect(store.stats()['consumers'] ?? 0).toBe(0)
  store.kv.get = get
  await wiring.start()
  expect(await wiring.fire('hand')).toMatchObject({ created: true })
  expect((await wiring.list()).map(({ nextRunAt }) => typeof nextRunAt)).toEqual(['number', 'undefined'])
})

it('a cause that a killed process has stored and not fired is fired at the next start, whatever its trigger is called', async () => {
  const ids = ['plain', 'a[1]*?\\', 'a']
  const definitions = ids.map((id): TriggerDefinition => ({ id, on: { manual: true }, start: 'job' }))
  await triggersOf(...definitions).start()
  await wiring.stop()
  for (const id of ids) await store.append(causeSubject(id, 'k'), { type: 'trigger.requested', trigger: { id, kind: 'manual', cause: 'k', at: 1 }, data: id })
  await triggersOf(...definitions).start()
  await until('each has fired', async () => (await wiring.list()).every(({ fired }) => fired === 1))
  expect(wiring.stats()).toMatchObject({ fired: 3, started: 3 })
})
