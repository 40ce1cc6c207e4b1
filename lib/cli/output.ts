import { styleText } from 'node:util'
import Table from 'cli-table3'

/** What is wrong with how the command was called. */
export class UsageError extends Error {}

type Style = Parameters<typeof styleText>[0]

const GAP = 2
const MIN_COLUMN = 6

/** Where a command writes: tables and colours on a terminal, JSON elsewhere. */
export class Output {
  readonly json: boolean
  readonly color: boolean

  constructor({ json, color }: { json?: boolean | undefined, color?: boolean | undefined }) {
    this.json = json ?? !process.stdout.isTTY
    const forced = process.env['FORCE_COLOR'] !== undefined && process.env['FORCE_COLOR'] !== '0'
    this.color = color !== false && !process.env['NO_COLOR'] && (forced || process.stdout.isTTY === true)
  }

  style(style: Style, text: string): string {
    return this.color ? styleText(style, text, { validateStream: false } as any) : text
  }

  /** Writes text; resolves when there is room for more. */
  async write(text: string): Promise<void> {
    if (!process.stdout.write(text)) await new Promise(resolve => process.stdout.once('drain', resolve))
  }

  line(text = ''): Promise<void> {
    return this.write(`${text}\n`)
  }

  /** Writes one JSON value per line. */
  async rows(values: unknown[]): Promise<void> {
    for (const value of values) await this.line(JSON.stringify(value))
  }

  /** Writes to standard error, on a terminal or not, what is no result. */
  note(text: string): void {
    process.stderr.write(`${text}\n`)
  }

  /** Writes a table that fits the terminal: the widest columns are shortened. */
  async table(head: string[], rows: string[][], styles: Record<number, (text: string) => string> = {}): Promise<void> {
    const cells = rows.map(row => row.map(printable))
    const widths = head.map((title, i) => Math.max(title.length, ...cells.map(row => (row[i] ?? '').length)) + GAP)
    const room = Math.max(process.stdout.columns ?? 120, 40)
    for (let over = sum(widths) - room; over > 0; over = sum(widths) - room) {
      const widest = Math.max(...widths)
      if (widest <= MIN_COLUMN) break
      widths[widths.indexOf(widest)] = Math.max(MIN_COLUMN, widest - over, second(widths))
    }
    const table = new Table({
      head: head.map(title => this.style('bold', title)), colWidths: widths, style: { 'head': [], 'border': [], 'padding-left': 0, 'padding-right': GAP },
      chars: Object.fromEntries(['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right', 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'].map(name => [name, ''])),
    })
    for (const row of cells) {
      table.push(row.map((cell, i) => {
        const text = cell.length > widths[i]! - GAP ? `${cell.slice(0, Math.max(1, widths[i]! - GAP - 1))}…` : cell
        return this.color && styles[i] ? styles[i]!(text) : text
      }))
    }
    await this.line(table.toString().split('\n').map(line => line.trimEnd()).join('\n'))
  }

  status(text: string): string {
    const style: Style = text === 'failed' || text === 'parked' ? 'red' : text === 'completed' ? 'green' : text === 'running' || text === 'active' ? 'cyan' : 'yellow'
    return this.style(style, text)
  }
}

const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0)

/** Returns the second greatest of them, at most one less than the greatest. */
function second(numbers: number[]): number {
  const [first = 0, next = 0] = [...numbers].sort((a, b) => b - a)
  return next === first ? first - 1 : next
}

/** Returns text of one line, without characters that a terminal would obey. */
// eslint-disable-next-line no-control-regex
export const printable = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')

const two = (n: number): string => String(n).padStart(2, '0')

/** Returns a time as local time, to the millisecond. Empty where there is none. */
export function local(ms: number | undefined | null): string {
  if (ms === undefined || ms === null || !Number.isFinite(ms)) return ''
  const d = new Date(ms)
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`
}

export const iso = (ms: unknown): string | undefined => typeof ms === 'number' && Number.isFinite(ms) ? new Date(ms).toISOString() : undefined

/** Returns a duration in ms as people read it. Empty where there is none. */
export function lasting(ms: number | undefined): string {
  if (ms === undefined || !Number.isFinite(ms)) return ''
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.round(ms % 60_000 / 1_000)} s`
  return minutes < 2_880 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 1_440)} d`
}

/** Shows how far long work has come, on standard error, where that is a terminal. */
export class Progress {
  private shown = 0

  constructor(private readonly what: string, private readonly total?: number) {}

  update(done: number): void {
    if (!process.stderr.isTTY || Date.now() - this.shown < 100) return
    this.shown = Date.now()
    const bar = this.total ? ` [${'█'.repeat(Math.min(24, Math.round(24 * done / this.total))).padEnd(24, '░')}] ${Math.min(100, Math.round(100 * done / this.total))} %` : ''
    process.stderr.write(`\r\u001b[2K${this.what}${bar} ${done.toLocaleString('en')}`)
  }

  end(): void {
    if (this.shown > 0) process.stderr.write('\r\u001b[2K')
  }
}
