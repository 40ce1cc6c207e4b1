import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { finite, json, text } from '../check'
import { storeCall } from '../native'
import { invalid, NventError } from '../errors'
import type { NventStoreAdapter } from '../store'
import { Progress, UsageError } from './output'
import type { Output } from './output'
import type { Source } from './source'

const FORMAT = 'nvent-native'
const VERSION = 1
const PARTS = ['events', 'values', 'entries', 'documents'] as const
type Part = typeof PARTS[number]

/** Lines of one import step, and their bytes. */
const BATCH_LINES = 1_000
const BATCH_BYTES = 4 << 20
/** Calls to Redis that are under way at a time. */
const PIPELINE = 200

const header = (): string => `${JSON.stringify({ format: FORMAT, version: VERSION })}\n`

/** Writes everything as lines of JSON: a header, events in the order of the feed, values, index entries, documents. */
export async function exportStore(source: Source, out: Output, after: string | undefined): Promise<void> {
  if (process.stdout.isTTY) throw new UsageError('export: writes to standard output; send it to a file: nvent-native export > file.ndjson')
  const progress = new Progress('exported')
  let done = 0
  const write = async (lines: string, rows: number): Promise<void> => {
    await out.write(lines)
    progress.update(done += rows)
  }
  await out.write(header())
  if (source.kind === 'redis') {
    if (after !== undefined) throw new UsageError('--after: an export from Redis is not resumed; import it again, what is there is skipped')
    await exportRedis(source, write)
  }
  else await exportFile(source, after, write)
  progress.end()
  out.note(`exported ${done.toLocaleString('en')} rows`)
}

async function exportFile({ store }: Source, after: string | undefined, write: (lines: string, rows: number) => Promise<void>): Promise<void> {
  const [part, row] = after?.split(':') ?? ['events', '0']
  const first = PARTS.indexOf(part as Part)
  if (first < 0 || !/^\d+$/.test(row ?? '')) throw new UsageError(`--after: ${JSON.stringify(after)} is none of the positions in "at", such as "events:120"`)
  for (const name of PARTS.slice(first)) {
    let next: number | null = name === part ? Number(row) : 0
    while (next !== null) {
      const from: number = next
      const page: { lines: string, rows: number, next: number | null } = await storeCall(() => store.native.exportPage(name, from, BATCH_LINES))
      await write(page.lines, page.rows)
      next = page.next
    }
  }
}

/** Writes the events subject by subject, then the values and the index entries. */
async function exportRedis({ store }: Source, write: (lines: string, rows: number) => Promise<void>): Promise<void> {
  const lines = (rows: object[]): Promise<void> => write(rows.map(row => `${JSON.stringify(row)}\n`).join(''), rows.length)
  const pages = async (read: (cursor: string | undefined) => Promise<{ cursor: string | null }>): Promise<void> => {
    let cursor: string | null | undefined
    do cursor = (await read(cursor ?? undefined)).cursor
    while (cursor !== null)
  }
  const seen = new Set<string>()
  await pages(async (cursor) => {
    const page = await store.subjects('*', cursor)
    for (const subject of page.subjects) {
      if (seen.has(subject)) continue
      seen.add(subject)
      for (let after: string | undefined; ;) {
        const events = await store.read(subject, { limit: BATCH_LINES, ...after === undefined ? {} : { after } })
        if (events.length === 0) break
        await lines(events.map(event => ({ subject, event })))
        after = events.at(-1)!.id
      }
    }
    return page
  })
  await pages(async (cursor) => {
    const page = await storeCall<{ values: object[], cursor: string | null }>(() => store.native.kvPage(cursor))
    await lines(page.values)
    return page
  })
  const keys = new Set<string>()
  await pages(async (cursor) => {
    const page = await storeCall<{ subjects: string[], cursor: string | null }>(() => store.native.indexKeys('*', cursor))
    page.subjects.forEach(key => keys.add(key))
    return page
  })
  for (const index of keys) {
    for (let offset = 0; ; offset += BATCH_LINES) {
      const entries = await store.index.read(index, { limit: BATCH_LINES, offset })
      await lines(entries.map(({ id, score, metadata }) => ({ index, id, score, metadata })))
      if (entries.length < BATCH_LINES) break
    }
  }
}

interface Imported { added: number, skipped: number }
/** A line, and its number in the file. */
interface Line { text: string, number: number }

/** Stores the lines of an export. Events that are there are skipped: an import can be repeated. */
export async function importStore(source: Source, out: Output, file: string | undefined): Promise<void> {
  if (file === undefined && process.stdin.isTTY) throw new UsageError('import: reads from standard input: nvent-native import < file.ndjson')
  const input = file === undefined ? process.stdin : createReadStream(file)
  const progress = new Progress('imported')
  const total: Imported = { added: 0, skipped: 0 }
  let [batch, bytes, number]: [Line[], number, number] = [[], 0, 0]
  const flush = async (): Promise<void> => {
    if (batch.length === 0) return
    const done = await (source.kind === 'file' ? importFile(source, batch) : importRedis(source, batch))
    total.added += done.added
    total.skipped += done.skipped
    ;[batch, bytes] = [[], 0]
    progress.update(total.added + total.skipped)
  }
  for await (const line of createInterface({ input, crlfDelay: Infinity })) {
    number += 1
    if (line.trim() === '') continue
    if (number === 1) {
      checkHeader(line)
      continue
    }
    batch.push({ text: line, number })
    bytes += line.length
    if (batch.length >= BATCH_LINES || bytes >= BATCH_BYTES) await flush()
  }
  if (number === 0) throw invalid('import: there is no line; expected those of nvent-native export')
  await flush()
  progress.end()
  if (out.json) return out.rows([total])
  await out.line(`imported ${total.added.toLocaleString('en')} rows, ${total.skipped.toLocaleString('en')} were there`)
}

function checkHeader(line: string): void {
  let head: any
  try {
    head = JSON.parse(line)
  }
  catch {
    throw invalid('line 1: is no JSON; expected the header of an export')
  }
  if (head?.format !== FORMAT) throw invalid('line 1: is not the header of an export, {"format":"nvent-native","version":1}')
  if (head.version !== VERSION) throw invalid(`line 1: format version ${head.version} is not known, ${VERSION} is: use a newer nvent-native`)
}

const importFile = async ({ store }: Source, batch: Line[]): Promise<Imported> =>
  storeCall<Imported>(() => store.native.importLines(batch.map(({ text }) => text).join('\n'))).catch((error: NventError) => {
    const [at, line] = /^line (\d+): /.exec(error.message) ?? []
    throw at === undefined ? error : inLine(batch[Number(line) - 1]!, error, error.message.slice(at.length))
  })

/** Returns an error of a line with its number. */
const inLine = ({ number }: Line, { code, retryable }: NventError, message: string): NventError =>
  new NventError(code, `line ${number}: ${message}`, { retryable })

/** Sends one line after the other, so that events keep the order of their subject; many are under way at a time. */
async function importRedis({ store }: Source, batch: Line[]): Promise<Imported> {
  const done: Imported = { added: 0, skipped: 0 }
  for (let from = 0; from < batch.length; from += PIPELINE) {
    const results = await Promise.allSettled(batch.slice(from, from + PIPELINE).map(line => importLine(store, line.text).catch((error: unknown) => {
      throw error instanceof NventError ? inLine(line, error, error.message) : error
    })))
    for (const result of results) {
      if (result.status === 'rejected') throw result.reason
      done[result.value ? 'added' : 'skipped'] += 1
    }
  }
  return done
}

/** Stores a line. Resolves with false where it is there, or has expired. */
async function importLine(store: NventStoreAdapter, line: string): Promise<boolean> {
  let row: any
  try {
    row = JSON.parse(line)
  }
  catch {
    throw invalid('is no JSON')
  }
  if (row?.subject !== undefined) return storeCall<boolean>(() => store.native.importEvent(text('subject', row.subject), json('event', row.event)))
  if (row?.key !== undefined && row.value !== undefined) {
    const ttl = row.expiresAt === undefined ? undefined : row.expiresAt - Date.now()
    if (ttl !== undefined && ttl <= 0) return false
    await store.kv.set(row.key, row.value, ttl === undefined ? undefined : ttl / 1_000)
  }
  else if (row?.index !== undefined) await storeCall(() => store.native.importEntry(text('index', row.index), text('id', row.id), finite('score', row.score), json('metadata', row.metadata)))
  else if (row?.collection !== undefined) await store.save(row.collection, row.id, row.doc)
  else throw invalid('is no line of an export: expected an event, a value, an index entry or a document')
  return true
}
