/** The results as tables: with targets in a terminal, without them in docs/benchmarks.md and the README. */

/** Two figures that count. */
const short = value => value >= 100 ? Math.round(value).toLocaleString('en') : value >= 10 ? value.toFixed(0) : value >= 1 ? value.toFixed(1) : value.toFixed(2)
const micro = ns => `${short(ns / 1000)} µs`
const times = ({ median, min, max }) => `${short(median)} × (${short(min)}–${short(max)})`
const mark = ({ target, met }) => target === undefined ? '' : met ? ` ✓ ≥ ${short(target)}` : ` ✗ ≥ ${short(target)}`

/** A row's figures as lines: what it is compared with, the ratio, and what it should be. */
function comparisons({ ratios }) {
  return ratios.flatMap(({ to, time, cpu }) => [
    `${to}: ${times(time)}${mark(time)}`,
    ...cpu.target === undefined ? [] : [`${to}, CPU of the main thread: ${times(cpu)}${mark(cpu)}`],
  ])
}

function noted({ contenders, unit, limit, met, most = [] }) {
  const lines = Object.entries(contenders).filter(([name]) => name !== 'native').map(([name, { median }]) => `${name}: ${short(median)} ${unit}`)
  for (const { to, ratio, limit, met } of most) lines.push(`${met ? '✓' : '✗'} ${times(ratio)} of ${to}, at most ${limit} ×`)
  return limit === undefined ? lines : [`${met ? '✓' : '✗'} at most ${limit} ${unit}`, ...lines]
}

/** Rows without a contender of ours compare sizes. */
const isGrowth = ({ contenders }) => !contenders.native
const native = ({ contenders, unit }) => !contenders.native
  ? ''
  : unit
    ? `${short(contenders.native.median)} ${unit} (${short(contenders.native.min)}–${short(contenders.native.max)})`
    : micro(contenders.native.ns.median)
const missed = ({ ratios = [], most = [], met }) => met === false || most.some(({ met }) => !met) || ratios.some(({ time, cpu }) => time.met === false || cpu.met === false)
const because = row => row.why ?? 'the reason is not known'
const lines = row => row.unit ? noted(row) : comparisons(row)

/** How many targets there are, and how many are met. */
function score(rows) {
  const all = rows.flatMap(({ ratios = [], most = [], met }) => [met, ...most.map(({ met }) => met), ...ratios.flatMap(({ time, cpu }) => [time.met, cpu.met])]).filter(met => met !== undefined)
  return `${all.filter(Boolean).length} of ${all.length} targets met`
}

export function text({ areas, machine, seconds }) {
  const out = [`${machine.cpu}, ${machine.cores} cores, ${machine.platform}, Node ${machine.node.slice(1)}, ${seconds} s`]
  for (const { title, rows } of areas) {
    out.push('', `── ${title}: ${score(rows)}`)
    for (const row of rows) {
      out.push(`${row.name}: ${native(row)}`, ...lines(row).map(line => `    ${line}`))
      if (missed(row)) out.push(`    because ${because(row)}`)
    }
  }
  return out.join('\n')
}

const escaped = value => value.replaceAll('|', '\\|')
const table = rows => rows.map(cells => `| ${cells.map(escaped).join(' | ')} |`)
const header = names => [names, names.map(() => '---')]

/** The figures of a contender: time, or what the row's unit says. */
const figures = contender => contender.ns ?? contender
const scaled = ({ unit }) => unit ? value => short(value) : ns => short(ns / 1000)

/** The names of contenders with the lowest median. */
function best({ contenders }) {
  const lowest = Math.min(...Object.values(contenders).map(contender => figures(contender).median))
  return Object.keys(contenders).filter(name => figures(contenders[name]).median === lowest)
}

/** A cell per contender: the median, in bold for the best, and the spread where it is wanted. */
function cells(row, names, { spread }) {
  const [winner] = best(row)
  const show = scaled(row)
  return names.map((name) => {
    const contender = row.contenders[name]
    if (!contender) return '–'
    const { median, min, max } = figures(contender)
    const value = name === winner && !isGrowth(row) && Object.keys(row.contenders).length > 1 ? `**${show(median)}**` : show(median)
    return spread ? `${value} (${show(min)}–${show(max)})` : value
  })
}

/** One table for timed rows, and one for each other unit, with a column for every contender among its rows. */
function tables(rows) {
  const units = [...new Set(rows.map(({ unit }) => unit))]
  return units.map((unit) => {
    const group = rows.filter(row => row.unit === unit)
    return { unit, names: [...new Set(group.flatMap(({ contenders }) => Object.keys(contenders)))], rows: group }
  })
}

/** What else was measured of timed rows: the main thread's share of each operation, and what a round did to the process. */
function details(rows) {
  const timed = rows.filter(({ unit }) => !unit)
  if (timed.length === 0) return []
  const names = [...new Set(timed.flatMap(({ contenders }) => Object.keys(contenders)))]
  const hidden = (summary, cell) => [
    '', '<details>', `<summary>${summary}</summary>`, '',
    ...table([...header(['work', ...names]), ...timed.map(row => [row.name, ...names.map(name => row.contenders[name] ? cell(row.contenders[name]) : '–')])]),
    '', '</details>',
  ]
  const mib = ({ median }) => (median / 2 ** 20).toFixed(1)
  return [
    ...hidden('CPU of the main thread, µs', ({ cpu }) => short(cpu.median / 1000)),
    ...timed.some(({ contenders }) => contenders.native.rss)
      ? hidden('Event loop delay p99, ms · growth of V8\'s heap · of resident memory in a round, MiB', ({ delay, heap, rss }) =>
          rss ? `${(delay.median / 1e6).toFixed(1)} · ${mib(heap)} · ${mib(rss)}` : '–')
      : [],
  ]
}

const machineLine = ({ machine, rounds }) => `${machine.cpu}, ${machine.cores} cores, ${machine.memory}, ${machine.platform}, Node ${machine.node.slice(1)}; `
  + `medians of ${rounds} rounds, ${machine.date}`

/** docs/benchmarks.md. */
export function markdown(results) {
  const out = [
    '# Benchmarks',
    '',
    '<!-- Generated by `npm run bench` from bench/results.json; `node bench/run.mjs --report` writes it again. -->',
    '',
    `${machineLine(results)}. In each round every contender does the same work, in turn. Cells are medians with the lowest and highest round, in `
    + 'microseconds per operation unless the row says otherwise; the best of a row is bold. They are the figures of one small machine: take the ratios. '
    + 'How each contender is used, and what was learnt, is in [bench](../bench/README.md).',
    '',
    '![How the others compare](bench.svg)',
  ]
  for (const { title, rows } of results.areas) {
    out.push('', `## ${title}`)
    for (const { unit, names, rows: group } of tables(rows)) {
      const name = row => unit ? `${row.name}, ${unit}` : row.name
      out.push('', ...table([...header(['work', ...names]), ...group.map(row => [name(row), ...cells(row, names, { spread: true })])]))
    }
    out.push(...details(rows))
    const growth = rows.filter(row => row.why && isGrowth(row))
    if (growth.length > 0) out.push('', 'What grows, and why:', '', ...growth.map(({ name, why }) => `- ${name}: ${why}.`))
    const behind = rows.filter(row => row.why && !isGrowth(row) && !best(row).includes('native'))
    const reasons = new Set(behind.map(({ why }) => why))
    const of = reason => behind.filter(({ why }) => why === reason).map(({ name }) => name)
    if (behind.length > 0) out.push('', 'Where another is faster, and why:', '', ...[...reasons].map(reason => `- ${of(reason).join('; ')}: ${reason}.`))
  }
  return `${out.join('\n')}\n`
}

/** The rows of the README: names as they begin, for each area. */
const README_ROWS = {
  file: ['append, 256 in flight', 'append, one by one', 'append, durable (fdatasync), 64', 'read a run of 30', 'kv.set', 'kv.get'],
  redis: ['append, 256 in flight', 'append, one by one', 'read a run of 30', 'kv.get of an object, 256', 'index.update, 256'],
}
const README_PEERS = { file: ['native', 'lmdb', 'better-sqlite3'], redis: ['native', 'ioredis', 'node-redis', 'valkey-glide'] }

/** The README's two tables. */
export function summary(results) {
  const out = [`Microseconds per operation, ${machineLine(results)}:`]
  for (const { area, title, rows } of results.areas) {
    const peers = README_PEERS[area]
    if (!peers) continue
    const shown = README_ROWS[area].flatMap(name => rows.find(row => row.name.startsWith(name)) ?? [])
    const among = row => ({ ...row, contenders: Object.fromEntries(peers.filter(name => row.contenders[name]).map(name => [name, row.contenders[name]])) })
    out.push('', ...table([...header([title, ...peers]), ...shown.map(row => [row.name, ...cells(among(row), peers, { spread: false })])]))
  }
  return out.join('\n')
}
