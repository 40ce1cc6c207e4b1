/** The chart of docs/benchmarks.md: for each row and peer, the ratio on a logarithmic scale. */

const BAR = 16
const LEFT = 470
const WIDTH = 1_000
const DECADES = [0.01, 0.1, 1, 10, 100, 1000]
const COLOURS = { ahead: '#2f9e6e', behind: '#d9822b' }

const x = ratio => LEFT + (WIDTH - LEFT - 70) * (Math.log10(Math.min(1000, Math.max(0.01, ratio))) + 2) / 5
const escaped = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const shown = ratio => ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(ratio >= 1 ? 1 : 2)

export function chart({ areas }) {
  let y = 46
  const parts = []
  const text = (at, words, attributes = '') => parts.push(`<text x="${at}" y="${y}" ${attributes}>${escaped(words)}</text>`)
  for (const { title, rows } of areas) {
    const bars = rows.flatMap(row => (row.ratios ?? []).map(ratio => ({ row, ...ratio })))
    if (bars.length === 0) continue
    y += 24
    text(10, title, 'font-weight="bold"')
    for (const { row, to, time: { median, min, max } } of bars) {
      y += BAR
      text(LEFT - 8, `${row.name} · ${to}`, 'text-anchor="end" font-size="10"')
      const [from, until] = [x(1), x(median)].sort((a, b) => a - b)
      parts.push(`<rect x="${from.toFixed(1)}" y="${y - 9}" width="${Math.max(1, until - from).toFixed(1)}" height="10" fill="${median >= 1 ? COLOURS.ahead : COLOURS.behind}"/>`)
      parts.push(`<path d="M${x(min).toFixed(1)} ${y - 4}H${x(max).toFixed(1)}" stroke="#555"/>`)
      text(WIDTH - 62, `${shown(median)} ×`, 'font-size="10"')
    }
  }
  const height = y + 20
  const grid = DECADES.map(ratio => `<path d="M${x(ratio)} 34V${height - 12}" stroke="${ratio === 1 ? '#888' : '#ddd'}"/>`
    + `<text x="${x(ratio)}" y="28" text-anchor="middle" font-size="10">${ratio} ×</text>`)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#222">`,
    '<rect width="100%" height="100%" fill="#fff"/>',
    '<text x="10" y="16">What the others take, in times ours. Bar: median; line: lowest to highest round. Green: ours is faster; orange: the other is.</text>',
    ...grid,
    ...parts,
    '</svg>',
    '',
  ].join('\n')
}
