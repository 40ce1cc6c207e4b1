import type { Labels, Sample } from './registry'

/** The text format of Prometheus, version 0.0.4. */

/** Durations in cumulative buckets. */
export interface Histogram { labels: Labels, sum: number, buckets: Array<[bound: number | null, count: number]> }

const escapeLabel = (value: string): string => value.replace(/[\\"\n]/g, char => char === '\n' ? '\\n' : `\\${char}`)
const escapeHelp = (text: string): string => text.replace(/[\\\n]/g, char => char === '\n' ? '\\n' : '\\\\')

const printNumber = (value: number): string =>
  value === Infinity ? '+Inf' : value === -Infinity ? '-Inf' : String(value)

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`)
  return `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${printNumber(value)}\n`
}

/** Returns a metric with all its series. */
export function family(name: string, type: 'counter' | 'gauge' | 'histogram', help: string, series: Array<Sample | Histogram>): string {
  let out = `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`
  for (const one of series) {
    if (!('buckets' in one)) {
      out += line(name, one.labels, one.value)
      continue
    }
    for (const [bound, count] of one.buckets) out += line(`${name}_bucket`, { ...one.labels, le: printNumber(bound ?? Infinity) }, count)
    out += line(`${name}_sum`, one.labels, one.sum)
    out += line(`${name}_count`, one.labels, one.buckets.at(-1)![1])
  }
  return out
}
