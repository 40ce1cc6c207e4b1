import { bridge, callSync } from '../native'
import { collect } from './registry'
import type { Labels, Sample } from './registry'
import { NATIVE } from './tables'
import { family } from './text'
import type { Histogram } from './text'

type NativeRow = [name: string, labels: Labels, value: number, buckets: Array<[bound: number | null, count: number]> | null]

/**
 * Returns the numbers of every adapter and wiring in use as Prometheus text (version 0.0.4), for `GET /metrics`. Nothing is
 * read from a disk or a server for it but the size of the files. Counters and gauges are those of this JavaScript environment
 * (the main thread, or a worker thread), what the core measures itself (durations, jobs by state) is the whole process's.
 */
export function metrics(): string {
  const families: string[] = []
  for (const { metric, samples } of collect().values()) families.push(family(metric.name, metric.type, metric.help, samples))
  const rows = JSON.parse(callSync(() => bridge.metrics())) as NativeRow[]
  const native = new Map<string, Array<Sample | Histogram>>()
  for (const [name, labels, value, buckets] of rows) {
    const series = native.get(name) ?? []
    native.set(name, series)
    series.push(buckets === null ? { labels, value } : { labels, sum: value, buckets })
  }
  for (const [name, series] of native) {
    const known = NATIVE[name]
    if (known) families.push(family(name, known.type, known.help, series))
  }
  return families.sort().join('')
}
