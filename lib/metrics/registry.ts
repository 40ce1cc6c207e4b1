/** Where everything that has numbers registers, for `metrics()` to find it. */

/** Labels of a series. Values come from names that an application chooses in its code, never from its users' data. */
export type Labels = Record<string, string>

/** A metric that is read from the `stats()` of its sources. */
export interface Metric<S = any> {
  /** `nvent_…`, with the base unit and, for a counter, `_total` at its end. */
  name: string
  /** One sentence. */
  help: string
  type: 'counter' | 'gauge'
  /** Returns the value, or values with the labels that distinguish them, or undefined where the source has none. */
  value: (stats: S) => number | undefined | Array<[Labels, number]>
  /** How the values of sources with equal labels become one. Default `sum`. */
  merge?: 'sum' | 'max'
  /** Whether sources with the same `shared` report the same number, which is counted once. */
  isShared?: boolean
}

/** Something with numbers. */
export interface MetricSource<S = any> {
  metrics: ReadonlyArray<Metric<S>>
  labels?: Labels
  /** Returns the numbers; undefined once the object behind them is gone. */
  read: () => S | undefined
  /** What it shares with other sources, such as its data directory. */
  shared?: string
  /** Whose numbers these are, where they go on counting when the owner is started again. */
  owner?: object
}

/** Series of one metric; the labels of further ones, but for the backend, are `other`. As in src/metrics.rs. */
const MAX_SERIES = 200
const OTHER = 'other'

/** A value and the labels that it is printed with. */
export interface Sample { labels: Labels, value: number }

const key = Symbol.for('nvent-native.metrics')
interface State {
  sources: Set<MetricSource>
  /** Counters of sources that have ended, by name and labels. */
  ended: Map<string, Map<string, Sample>>
  /** What sources with an owner have left there. */
  left: WeakMap<object, Array<[name: string, sample: Sample]>>
}
const shared = globalThis as { [key]?: State }
/** The sources of this JavaScript environment, however often the package was loaded. */
const state = shared[key] ??= { sources: new Set(), ended: new Map(), left: new WeakMap() }

/** Returns the values of a metric of a source. */
function valuesOf(source: MetricSource, metric: Metric, stats: unknown): Sample[] {
  const value = metric.value(stats)
  if (value === undefined) return []
  const values: Array<[Labels, number]> = Array.isArray(value) ? value : [[{}, value]]
  return values.map(([labels, number]) => ({ labels: { ...source.labels, ...labels }, value: number }))
}

/** Returns the labels as a key, in the order of their names. */
const keyOf = (labels: Labels): string => JSON.stringify(Object.entries(labels).sort(([a], [b]) => a < b ? -1 : 1))

function add(series: Map<string, Sample>, { labels, value }: Sample, merge: Metric['merge']): void {
  let at = keyOf(labels)
  if (series.size >= MAX_SERIES && !series.has(at)) {
    labels = Object.fromEntries(Object.entries(labels).map(([label, text]) => [label, label === 'backend' ? text : OTHER]))
    at = keyOf(labels)
  }
  const other = series.get(at)
  if (!other) series.set(at, { labels, value })
  else other.value = merge === 'max' ? Math.max(other.value, value) : other.value + value
}

/**
 * Registers a source. Returns a function that ends it: its counters remain in the sums, so that they do not go back, and its
 * gauges are gone. A `last` that is given is what it had at its end; otherwise it is read once more.
 */
export function registerMetrics<S>(source: MetricSource<S>): (last?: S) => void {
  const { owner } = source
  if (owner) {
    // It still has what it had when it ended the last time.
    for (const [name, { labels, value }] of state.left.get(owner) ?? []) add(state.ended.get(name)!, { labels, value: -value }, 'sum')
    state.left.delete(owner)
  }
  state.sources.add(source)
  return (last = source.read()) => {
    if (!state.sources.delete(source) || last === undefined) return
    const left: Array<[string, Sample]> = []
    for (const metric of source.metrics) {
      if (metric.type !== 'counter') continue
      // The others that share it go on counting.
      if (metric.isShared && [...state.sources].some(other => other.shared === source.shared && other.metrics === source.metrics)) continue
      let series = state.ended.get(metric.name)
      if (!series) state.ended.set(metric.name, series = new Map())
      for (const sample of valuesOf(source, metric, last)) {
        add(series, sample, metric.merge)
        left.push([metric.name, sample])
      }
    }
    if (owner) state.left.set(owner, left)
  }
}

/** Reads every source. Returns the metrics by name, with their series. */
export function collect(): Map<string, { metric: Pick<Metric, 'name' | 'help' | 'type'>, samples: Sample[] }> {
  const found = new Map<string, { metric: Metric, series: Map<string, Sample> }>()
  const seen = new Set<string>()
  for (const source of [...state.sources]) {
    const stats = source.read()
    if (stats === undefined) {
      state.sources.delete(source)
      continue
    }
    for (const metric of source.metrics) {
      if (metric.isShared && source.shared !== undefined) {
        const once = JSON.stringify([metric.name, source.shared])
        if (seen.has(once)) continue
        seen.add(once)
      }
      const samples = valuesOf(source, metric, stats)
      if (samples.length === 0) continue
      let entry = found.get(metric.name)
      if (!entry) found.set(metric.name, entry = { metric, series: copyOf(state.ended.get(metric.name)) })
      for (const sample of samples) add(entry.series, sample, metric.merge)
    }
  }
  for (const [name, series] of state.ended) {
    const metric = definitions.get(name)
    if (metric && !found.has(name)) found.set(name, { metric, series: copyOf(series) })
  }
  return new Map([...found].map(([name, { metric, series }]) => [name, { metric, samples: [...series.values()] }]))
}

const copyOf = (series: Map<string, Sample> | undefined): Map<string, Sample> =>
  new Map([...series ?? []].map(([at, sample]) => [at, { ...sample }]))

/** Every metric that was declared, by name. */
const definitions = new Map<string, Metric>()

/** Declares a table of metrics. A name is declared once. */
export function declareMetrics<S>(metrics: Array<Metric<S>>): ReadonlyArray<Metric<S>> {
  for (const metric of metrics) {
    if (definitions.has(metric.name)) throw new Error(`the metric ${metric.name} is declared twice`)
    definitions.set(metric.name, metric)
  }
  return metrics
}

/** Returns what was declared, for the documentation to be compared with. */
export const declared = (): Metric[] => [...definitions.values()]

/** Registers an object without keeping it alive: one that is dropped without being closed disappears. */
export function registerWeakly<T extends object, S>(
  owner: T, source: Omit<MetricSource<S>, 'read'>, read: (owner: T) => S,
): (last?: S) => void {
  const reference = new WeakRef(owner)
  return registerMetrics<S>({
    ...source,
    read: () => {
      const object = reference.deref()
      return object && read(object)
    },
  })
}
