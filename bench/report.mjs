/** The results as tables: in a terminal, and in the README. */

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

function noted({ contenders, unit, limit, met }) {
  const lines = Object.entries(contenders).filter(([name]) => name !== 'native').map(([name, { median }]) => `${name}: ${short(median)} ${unit}`)
  return limit === undefined ? lines : [`${met ? '✓' : '✗'} at most ${limit} ${unit}`, ...lines]
}

const native = ({ contenders, unit }) => unit
  ? `${short(contenders.native.median)} ${unit} (${short(contenders.native.min)}–${short(contenders.native.max)})`
  : micro(contenders.native.ns.median)
const cpu = ({ contenders, unit }) => unit ? '' : micro(contenders.native.cpu.median)
const missed = ({ ratios = [], met }) => met === false || ratios.some(({ time, cpu }) => time.met === false || cpu.met === false)
const because = row => row.why ?? 'the reason is not known'
const lines = row => row.unit ? noted(row) : comparisons(row)

/** How many targets there are, and how many are met. */
function score(rows) {
  const all = rows.flatMap(({ ratios = [], met }) => [met, ...ratios.flatMap(({ time, cpu }) => [time.met, cpu.met])]).filter(met => met !== undefined)
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

export function markdown({ areas, machine, rounds, seconds }) {
  const out = [
    `Made by \`npm run bench\` on ${machine.date} in ${seconds} s: ${machine.cpu}, ${machine.cores} cores, ${machine.memory}, ${machine.platform}, `
    + `Node ${machine.node.slice(1)}. In each of ${rounds} rounds every contender does the same work, in turn. A ratio is the other's time divided by `
    + 'ours in the same round: over 1, we are ahead; median, and lowest to highest. ✓ and ✗ are held against what we set out to reach. '
    + 'Absolute figures are those of one small machine, and no claims. How each contender is used is in [bench](bench/README.md).',
    '',
    `![What the others take, in times ours](docs/bench.svg)`,
  ]
  for (const { title, rows } of areas) {
    out.push('', '<details>', `<summary><b>${title}</b>: ${score(rows)}</summary>`, '', '| work | native | main thread | compared with |', '|---|---|---|---|')
    for (const row of rows) {
      out.push(`| ${[row.name, native(row), cpu(row), lines(row).join('<br>')].map(escaped).join(' | ')} |`)
    }
    const misses = rows.filter(missed)
    const reasons = new Set(misses.map(because))
    const of = reason => misses.filter(row => because(row) === reason).map(({ name }) => name)
    if (misses.length > 0) out.push('', 'Missed, and why:', '', ...[...reasons].map(reason => `- ${of(reason).join('; ')}: ${reason}.`))
    out.push('', '</details>')
  }
  return out.join('\n')
}
