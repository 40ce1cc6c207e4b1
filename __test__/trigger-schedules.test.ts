import type { StoreAdapter, TriggerDefinition, WiringRegistry } from 'nvent-native'
import { createEventBus, createWiringRegistry, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { until } from './support/until'

const HOUR = 3_600_000
const flow = defineFlow('job', { only: { run: () => {} } })
const hourly: TriggerDefinition = { id: 'hourly', on: { schedule: '0 * * * *', timezone: 'UTC' }, start: 'job' }

/** The wall clock as the process sees it. */
let now: number
let store: StoreAdapter
let parts: any
let registry: WiringRegistry | undefined

beforeEach(() => {
  now = Date.parse('2026-03-01T10:30:00Z')
  vi.spyOn(Date, 'now').mockImplementation(() => now)
  const bus = createEventBus()
  store = new MemoryStoreAdapter({ bus })
  parts = { bus, store, queue: new MemoryQueueAdapter(), stream: new MemoryStreamAdapter(), flow: { flows: [flow] } }
})
afterEach(async () => {
  await registry?.stop()
  await parts.queue.close()
  await store.close()
  vi.restoreAllMocks()
})

async function start(...triggers: TriggerDefinition[]): Promise<void> {
  registry = createWiringRegistry({ ...parts, triggers })
  await registry.start()
}
const due = async (): Promise<string[]> => (await store.read('nq:trigger:hourly', { types: ['trigger.fired'] })).map(({ data }) => data.cause.slice(0, 16))
const fired = (...times: string[]) => until(`fired at ${times.join(', ')}`, async () => JSON.stringify(await due()) === JSON.stringify(times))

it('does not fire for what was before its first start', async () => {
  await start(hourly)
  now = Date.parse('2026-03-01T11:00:00Z')
  await fired('2026-03-01T11:00')
})

it('fires the latest of those that were missed while nothing ran, once', async () => {
  await start(hourly)
  await registry!.stop()
  now = Date.parse('2026-03-01T16:10:00Z')
  await start(hourly)
  await fired('2026-03-01T16:00')
  await registry!.stop()
  now = Date.parse('2026-03-01T16:20:00Z')
  await start(hourly)
  now = Date.parse('2026-03-01T17:00:01Z')
  await fired('2026-03-01T16:00', '2026-03-01T17:00')
})

it('follows a clock that is set, and fires no due time twice', async () => {
  await start(hourly)
  // Forward over several.
  now += 5 * HOUR
  await fired('2026-03-01T15:00')
  // Back by a day, then over the same times again, and over new ones.
  now -= 24 * HOUR
  await until('the clock was read', async () => (await registry!.triggers!.list())[0]!.nextRunAt === Date.parse('2026-02-28T16:00:00Z'))
  now = Date.parse('2026-03-01T15:10:00Z')
  await until('it was looked at', async () => await store.kv.get('nq:trigger-due:hourly') === Date.parse('2026-03-01T15:00:00Z'))
  now = Date.parse('2026-03-01T16:00:00Z')
  await fired('2026-03-01T15:00', '2026-03-01T16:00')
})

it('a due time that was skipped by a clock set forward fires when the clock that was set back comes to it', async () => {
  await start(hourly)
  now += 5 * HOUR
  await fired('2026-03-01T15:00')
  now -= 5 * HOUR
  await until('one that was skipped has fired', async () => {
    now += 20_000
    return (await due()).some(time => /T1[1-4]:00/.test(time))
  }, 5 * HOUR)
})

it('lets due times pass while it is disabled', async () => {
  await start(hourly)
  await registry!.triggers!.disable('hourly')
  now += HOUR
  await until('it was looked at', async () => await store.kv.get('nq:trigger-due:hourly') === Date.parse('2026-03-01T11:00:00Z'))
  expect((await registry!.triggers!.list())[0]).not.toHaveProperty('nextRunAt')
  await registry!.stop()
  now += HOUR
  await start(hourly)
  await registry!.triggers!.enable('hourly')
  now += HOUR
  await fired('2026-03-01T13:00')
})

it('does not fire for a time before it was enabled', async () => {
  await start(hourly)
  await registry!.triggers!.disable('hourly')
  now += HOUR
  await registry!.triggers!.enable('hourly')
  await until('it was looked at', async () => await store.kv.get('nq:trigger-due:hourly') === Date.parse('2026-03-01T11:00:00Z'))
  now += HOUR
  await fired('2026-03-01T12:00')
})

it('knows the time zones and their changes of the clock', async () => {
  now = Date.parse('2026-03-28T12:00:00Z')
  await start({ id: 'gap', on: { schedule: '30 2 * * *', timezone: 'Europe/Berlin' }, start: 'job' }, { id: 'noon', on: { schedule: '0 0 12 * * *', timezone: 'Asia/Tokyo' }, start: 'job' })
  const next = (await registry!.triggers!.list()).map(({ nextRunAt }) => new Date(nextRunAt!).toISOString())
  expect(next).toEqual(['2026-03-29T01:00:00.000Z', '2026-03-29T03:00:00.000Z'])
})
