/** What metrics() prints, read by a parser that is not ours. */
import { readFileSync } from 'node:fs'
import { parser } from '@prometheus-io/lezer-promql'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  createEventBus, createWiringRegistry, defineFlow, FileQueueAdapter, FileStoreAdapter, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter,
  metrics, RedisStoreAdapter, RedisStreamAdapter, startFlow,
} from 'nvent-native'
import type { QueueAdapter, StoreAdapter, StreamAdapter } from 'nvent-native'
import parse from 'parse-prometheus-text-format'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { declared, registerMetrics } from '../lib/metrics/registry'
import { BUS, COORDINATOR, NATIVE, WEBHOOKS } from '../lib/metrics/tables'
import { RedisServer } from './support/redis'
import { until } from './support/until'

let server: RedisServer
let folder: string
beforeAll(async () => {
  server = await RedisServer.start()
  folder = await mkdtemp(join(tmpdir(), 'nvent-metrics-'))
})
afterAll(async () => {
  await server.stop()
  await rm(folder, { recursive: true, force: true })
})

type Labels = Record<string, string>
interface Series { labels?: Labels, value?: string }
interface Family { name: string, help: string, type: string, metrics: Series[] }

/** Parses what metrics() prints, after a check of what Prometheus refuses: a series or a family that comes twice. */
function scrape(): Family[] {
  const text = metrics()
  const series = text.split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => line.slice(0, line.lastIndexOf(' ')))
  expect(series.filter((one, i) => series.indexOf(one) !== i)).toEqual([])
  const families: Family[] = parse(text)
  const names = families.map(family => family.name)
  expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([])
  for (const { name, help, type } of families) {
    expect(name).toMatch(/^nvent_[a-z_]+$/)
    expect(help, name).toMatch(/\.$/)
    expect(['COUNTER', 'GAUGE', 'HISTOGRAM'], name).toContain(type)
    expect(name.endsWith('_total'), name).toBe(type === 'COUNTER')
  }
  // The parser leaves the labels of histograms out. Without their types, each of their names is a family of its own.
  const untyped: Family[] = parse(text.replace(/^# TYPE \w+ histogram$/gm, ''))
  const isPart = ({ name }: Family): boolean => /_(bucket|sum|count)$/.test(name)
  return [...families, ...untyped.filter(isPart)]
}

const isNumber = ({ name, type }: Family): boolean => type === 'COUNTER' || /_(bucket|sum|count)$/.test(name)
const seriesOf = (families: Family[]): Map<string, number> => new Map(families.filter(isNumber).flatMap(family =>
  family.metrics.map(one => [`${family.name}${JSON.stringify(one.labels ?? {})}`, Number(one.value)] as const)))

const seriesNamed = (families: Family[], name: string): Series[] => families.filter(family => family.name === name).flatMap(family => family.metrics)

/** Returns the series of a name that has these labels, and no second one. */
function find(families: Family[], name: string, labels: Labels): Series | undefined {
  const found = seriesNamed(families, name).filter(one => Object.entries(labels).every(([label, value]) => one.labels?.[label] === value))
  expect(found.length, name).toBeLessThanOrEqual(1)
  return found[0]
}
const value = (name: string, labels: Labels = {}, families = scrape()): number | undefined => {
  const found = find(families, name, labels)?.value
  return found === undefined ? undefined : Number(found)
}
const count = (name: string, labels: Labels = {}): number => value(`${name}_count`, labels) ?? 0

interface Parts { store: StoreAdapter, stream: StreamAdapter, queue: QueueAdapter }
const BACKENDS: Array<[store: string, stream: string, queue: string, make: (bus: any) => Parts]> = [
  ['memory', 'memory', 'memory', bus => ({ store: new MemoryStoreAdapter({ bus }), stream: new MemoryStreamAdapter(), queue: new MemoryQueueAdapter() })],
  ['file', 'memory', 'file', bus => ({
    store: new FileStoreAdapter({ bus, dataDir: join(folder, 'store'), durability: 'disk' }), stream: new MemoryStreamAdapter(), queue: new FileQueueAdapter({ dataDir: join(folder, 'queue') }),
  })],
  ['redis', 'redis', 'memory', bus => ({
    store: new RedisStoreAdapter({ bus, connection: server.connection }), stream: new RedisStreamAdapter({ connection: server.connection }), queue: new MemoryQueueAdapter(),
  })],
]

describe.each(BACKENDS)('a store on %s', (store, stream, queue, make) => {
  it('every number of adapters and wirings is there while they run, and no counter goes back when they end', async () => {
    const bus = createEventBus()
    const parts = make(bus)
    const flow = defineFlow(`orders-${store}`, {
      take: { emits: ['taken'], run: async (_, step) => { await step.emit('taken', {}) } },
      pack: { subscribes: ['taken'], run: async () => 'packed' },
    })
    const registry = createWiringRegistry({ ...parts, bus, flow: { flows: [flow] } })
    await registry.start()
    const handled: any[] = []
    const consumer = await parts.store.consume('audit', event => void handled.push(event), { from: 'beginning' })
    await parts.stream.subscribe('flow:event:*', () => {})
    const before = { lag: count('nvent_channel_lag_seconds', { channel: 'flow' }), publish: count('nvent_stream_publish_seconds', { backend: stream }) }
    const run = await startFlow(flow, {})
    expect(await run.result({ timeout: 20_000 })).toMatchObject({ status: 'completed' })
    await until('the consumer has caught up', () => consumer.stats().lag === 0 && handled.at(-1)?.type === 'flow.completed')
    await until('the channel has everything', () => count('nvent_channel_lag_seconds', { channel: 'flow' }) >= before.lag + 2)

    const families = scrape()
    const known = new Set([...declared().map(metric => metric.name), ...Object.keys(NATIVE)])
    expect(families.map(family => family.name.replace(/_(bucket|sum|count)$/, '')).filter(name => !known.has(name))).toEqual([])
    expect(value('nvent_store_appends_total', { backend: store }, families)).toBeGreaterThanOrEqual(handled.length)
    const appended = (part: string, labels: Labels = {}): number => value(`nvent_store_append_seconds_${part}`, { backend: store, ...labels }, families)!
    expect(appended('count')).toBeGreaterThanOrEqual(handled.length)
    expect(appended('bucket', { le: '+Inf' })).toBe(appended('count'))
    expect(appended('bucket', { le: '0.000005' })).toBeLessThan(appended('count'))
    expect(appended('sum')).toBeGreaterThan(0)
    expect(appended('sum')).toBeLessThan(60 * appended('count'))
    expect(count('nvent_stream_publish_seconds', { backend: stream })).toBeGreaterThan(before.publish)
    expect(value('nvent_consumer_lag', { consumer: 'audit', backend: store }, families)).toBe(0)
    expect(value('nvent_consumer_delivered_total', { consumer: 'audit', backend: store }, families)).toBe(handled.length)
    expect(value('nvent_flow_triggered_total', {}, families)).toBeGreaterThanOrEqual(1)
    expect(value('nvent_coordinator_routed_total', { channel: 'store-sync' }, families)).toBeGreaterThan(0)
    for (const job of ['take', 'pack']) expect(count('nvent_queue_job_run_seconds', { backend: queue, queue: `${flow.id}.${job}`, job })).toBe(1)
    if (store === 'file') {
      expect(count('nvent_store_sync_seconds', { backend: 'file' })).toBeGreaterThan(0)
      expect(value('nvent_store_file_bytes', { backend: 'file', file: 'db' }, families)).toBeGreaterThan(0)
      expect(count('nvent_queue_commit_seconds', { backend: 'file' })).toBeGreaterThan(0)
    }

    const last = seriesOf(scrape())
    await parts.queue.close()
    await registry.stop()
    await parts.stream.shutdown()
    await parts.store.close()
    const after = seriesOf(scrape())
    expect([...last].filter(([series, number]) => !(after.get(series)! >= number))).toEqual([])
    expect(value('nvent_consumer_lag', { consumer: 'audit', backend: store })).toBeUndefined()
    // The queues are closed: there is nothing to say about their jobs.
    expect(find(scrape(), 'nvent_queue_jobs', { backend: queue, queue: `${flow.id}.take`, state: 'completed' })).toBeUndefined()
  })
})

it('adapters of one kind are summed, and what they share is counted once', async () => {
  const dataDir = join(folder, 'shared')
  const [a, b] = [new FileStoreAdapter({ dataDir, bus: null }), new FileStoreAdapter({ dataDir, bus: null })]
  const before = value('nvent_store_appends_total', { backend: 'file' })!
  const groups = value('nvent_store_commit_groups_total', { backend: 'file' }) ?? 0
  for (let i = 0; i < 3; i++) await Promise.all([a.append('s', { type: 'x' }), b.append('s', { type: 'x' }), b.append('t', { type: 'x' })])
  expect(value('nvent_store_appends_total', { backend: 'file' })).toBe(before + 9)
  const shared = a.stats()
  expect(value('nvent_store_file_bytes', { file: 'db' })).toBe(shared['dbBytes'])
  const total = value('nvent_store_commit_groups_total', { backend: 'file' })!
  expect(total - groups).toBe(shared['groups'])
  await a.close()
  const rest = b.stats()['groups']!
  expect(value('nvent_store_commit_groups_total', { backend: 'file' })).toBe(groups + rest)
  await b.close()
  // Closing commits a group or two itself.
  const end = value('nvent_store_commit_groups_total', { backend: 'file' })! - groups
  expect([end >= rest, end < 2 * rest]).toEqual([true, true])
  expect(value('nvent_store_file_bytes', { file: 'db' })).toBeUndefined()
})

it('a wiring that is stopped and started again counts on', async () => {
  const bus = createEventBus()
  const parts = { store: new MemoryStoreAdapter({ bus }), stream: new MemoryStreamAdapter(), queue: new MemoryQueueAdapter() }
  const flow = defineFlow('again', { only: { run: async () => {} } })
  const registry = createWiringRegistry({ ...parts, bus, flow: { flows: [flow] }, triggers: [{ id: 'by-hand', on: { manual: true }, start: 'again' }] })
  const before = value('nvent_trigger_fired_total') ?? 0
  const flows = value('nvent_flow_completed_total') ?? 0
  for (const round of [1, 2, 3]) {
    await registry.start()
    const { runIds } = await registry.triggers!.fire('by-hand')
    await (await startFlow(flow, {}, { runId: runIds[0]! })).result({ timeout: 20_000 })
    await until('it has been counted', () => value('nvent_trigger_fired_total') === before + round && value('nvent_flow_completed_total') === flows + round)
    await registry.stop()
    expect([value('nvent_trigger_fired_total'), value('nvent_flow_completed_total')]).toEqual([before + round, flows + round])
    expect(value('nvent_trigger_waiting')).toBeUndefined()
  }
  await parts.queue.close()
  await parts.store.close()
})

it('what goes on counting when it is started again is not counted twice', () => {
  const owner = {}
  let taken = 3
  const source = { metrics: WEBHOOKS.filter(metric => metric.name === 'nvent_webhook_events_total'), owner, read: () => ({ taken }) as any }
  for (const expected of [3, 5, 5]) {
    taken = expected
    const end = registerMetrics(source)
    expect(value('nvent_webhook_events_total')).toBe(expected)
    end()
    expect(value('nvent_webhook_events_total')).toBe(expected)
  }
})

it('jobs are counted by state, and the gauges of a closed queue are gone', async () => {
  const dataDir = join(folder, 'states')
  const strange = 'a "queue" \\ with everything'
  const state = (name: string, queue = strange): number | undefined => value('nvent_queue_jobs', { backend: 'file', queue, state: name })
  let queue = new FileQueueAdapter({ dataDir })
  for (let i = 0; i < 3; i++) await queue.enqueue(strange, { name: 'n', data: {} })
  await queue.enqueue(strange, { name: 'n', data: {}, opts: { delay: 600_000 } })
  expect([state('waiting'), state('delayed'), state('active')]).toEqual([3, 1, 0])
  await queue.pause(strange)
  expect(value('nvent_queue_paused', { queue: strange })).toBe(1)
  await queue.close()
  expect(state('waiting')).toBeUndefined()

  queue = new FileQueueAdapter({ dataDir })
  await queue.init()
  expect([state('waiting'), state('delayed'), state('active')]).toEqual([3, 1, 0])
  const attempts = (outcome: string): number => value('nvent_queue_attempts_total', { queue: strange, outcome })!
  queue.registerWorker(strange, 'n', async (job: any) => {
    if (job.data.fails) throw new Error('as asked')
  })
  await queue.enqueue(strange, { name: 'n', data: { fails: true } })
  await queue.resume(strange)
  await until('all have ended', () => state('completed') === 3 && state('failed') === 1)
  expect([attempts('completed'), attempts('failed'), attempts('timed_out')]).toEqual([3, 1, 0])
  expect(count('nvent_queue_job_wait_seconds', { queue: strange })).toBe(4)
  expect(count('nvent_queue_job_run_seconds', { queue: strange, job: 'n' })).toBe(4)
  const workers = (): number => value('nvent_queue_workers', { backend: 'file' }) ?? 0
  const before = workers()
  await queue.close()
  expect(workers()).toBe(before - 1)
})

it('the number of series has a bound, whatever the names', async () => {
  const queue = new MemoryQueueAdapter()
  for (let i = 0; i < 300; i++) await queue.enqueue(`queue-${i}`, { name: `job-${i}`, data: {} })
  const families = scrape()
  const waiting = seriesNamed(families, 'nvent_queue_jobs')
  expect(waiting.length).toBeLessThanOrEqual(1_010)
  expect(waiting.filter(one => one.labels!['state'] === 'waiting' || one.labels!['queue'] === 'other').reduce((sum, one) => sum + Number(one.value), 0)).toBe(300)
  expect(seriesNamed(families, 'nvent_queue_job_wait_seconds_count').length).toBeLessThanOrEqual(210)
  expect(metrics()).not.toContain('job-1')
  await queue.close()
})

it('of a metric with more than 200 series the others are one, whose backend is kept', () => {
  const routed = Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`channel-${n}`, 1]))
  const end = registerMetrics({ metrics: COORDINATOR.filter(({ name }) => name === 'nvent_coordinator_routed_total'), labels: { backend: 'own' }, read: () => ({ routed }) as any })
  const series = seriesNamed(scrape(), 'nvent_coordinator_routed_total')
  end()
  expect(series.reduce((sum, one) => sum + Number(one.value), 0)).toBeGreaterThanOrEqual(300)
  expect(series.length).toBeLessThanOrEqual(201)
  const others = series.filter(({ labels }) => labels!['channel'] === 'other')
  expect(others.map(({ labels, value }) => [labels, Number(value) >= 100])).toEqual([[{ backend: 'own', channel: 'other' }, true]])
})

it('a source that is gone is left out from then on', () => {
  let numbers: any = { handlers: 7 }
  const end = registerMetrics({ metrics: BUS.filter(({ name }) => name === 'nvent_bus_handlers'), labels: { backend: 'gone' }, read: () => numbers })
  expect(value('nvent_bus_handlers', { backend: 'gone' })).toBe(7)
  const kept = numbers
  numbers = undefined
  expect(value('nvent_bus_handlers', { backend: 'gone' })).toBeUndefined()
  numbers = kept
  expect(value('nvent_bus_handlers', { backend: 'gone' })).toBeUndefined()
  end()
})

it('docs/metrics.md lists every metric, with its type', () => {
  const page = readFileSync(new URL('../docs/metrics.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `(nvent_\w+)` \| (\w+) \| (.+) \|$/gm)].map(([, name, type, text]) => ({ name, type, help: text!.split(' | ').at(-1) }))
  const all = [...declared(), ...Object.entries(NATIVE).map(([name, rest]) => ({ name, ...rest }))].map(({ name, type, help }) => ({ name, type, help }))
  const sorted = (list: Array<{ name?: string }>): unknown[] => list.sort((a, b) => a.name! < b.name! ? -1 : 1)
  expect(sorted(rows)).toEqual(sorted(all))
})

it('every query of the Grafana dashboard asks for metrics and labels that there are', () => {
  const dashboard = JSON.parse(readFileSync(new URL('../docs/grafana-dashboard.json', import.meta.url), 'utf8'))
  const targets: Array<{ expr: string, legendFormat: string }> = dashboard.panels.flatMap((panel: any) => panel.targets ?? [])
  const queries = [...targets.map(target => target.expr), dashboard.templating.list[1].query.replace(/^label_values\((\w+),.*$/, '$1')]
  expect(queries.length).toBeGreaterThan(40)
  const types = new Map([...declared().map(({ name, type }) => [name, type] as const), ...Object.entries(NATIVE).map(([name, { type }]) => [name, type] as const)])
  const page = readFileSync(new URL('../docs/metrics.md', import.meta.url), 'utf8')
  const labelsOf = new Map([...page.matchAll(/^\| `(nvent_\w+)` \| \w+ \| ([^|]+) \|/gm)].map(([, name, labels]) => [name, labels!.split(/[ ,]+/)] as const))
  for (const [i, query] of queries.entries()) {
    const text = query.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*')
    const found: Record<string, string[]> = { Identifier: [], LabelName: [] }
    parser.parse(text).iterate({
      enter: ({ type, from, to }) => {
        expect(type.isError, `${text} at ${from}`).toBe(false)
        found[type.name]?.push(text.slice(from, to))
      },
    })
    const [name] = found['Identifier']!
    const base = name!.replace(/_(bucket|sum|count)$/, '')
    expect(types.has(name!) ? types.get(name!) !== 'histogram' : types.get(base) === 'histogram', text).toBe(true)
    expect(/\brate\(/.test(text), text).toBe(types.get(base) !== 'gauge')
    const shown = [...targets[i]?.legendFormat.matchAll(/\{\{(\w+)\}\}/g) ?? []].map(([, label]) => label!)
    const known = [...labelsOf.get(base)!, 'instance', 'le']
    expect([...found['LabelName']!, ...shown].filter(label => !known.includes(label)), text).toEqual([])
  }
})
