import { existsSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { callSync } from '../native'
import type { FileStoreAdapter } from '../store'
import { invalid, NventError } from '../errors'
import { UsageError } from './output'
import type { Output } from './output'
import { openQueues, openStore } from './source'
import type { Where } from './source'

const FILES_ONLY = 'a store on Redis has no files of its own: use what Redis has (BGSAVE, redis-check-rdb)'

/** Reads everything in store and queues. Returns whether it is as it was written. */
export async function verify(at: Where, out: Output): Promise<boolean> {
  if (at.redis !== undefined) throw new UsageError(`verify: ${FILES_ONLY}`)
  const checked: Array<{ file: string, ok: boolean, rows?: number, problems: string[] }> = []
  const { store, dir, heldBy } = await openStore(at)
  try {
    if (heldBy !== undefined && !out.json) out.note(`process ${heldBy} has it open; reading beside it`)
    const { ok, problems, rows } = await (store as FileStoreAdapter).verify() as { ok: boolean, problems: string[], rows?: number }
    checked.push({ file: join(dir!, 'nvent.db'), ok, ...rows === undefined ? {} : { rows }, problems })
  }
  finally {
    await store.close()
  }
  const queues = openQueues(at)
  if (queues) {
    const problems = callSync(() => queues.reader.verify())
    checked.push({ file: join(queues.dir, 'queue.db'), ok: problems.length === 0, problems })
  }
  const ok = checked.every(file => file.ok)
  if (out.json) await out.rows(checked)
  for (const { file, ok, rows, problems } of out.json ? [] : checked) {
    await out.line(`${ok ? out.style('green', 'whole') : out.style('red', 'damaged')}  ${file}${rows === undefined ? '' : `  (${rows.toLocaleString('en')} rows)`}`)
    for (const problem of problems) await out.line(`  ${problem}`)
    if (!ok) await out.line('  what to do: stop the application, keep a copy of the directory, restore the last backup')
  }
  return ok
}

/** Copies store and queues into a new directory, which can be used as it is. */
export async function backup(at: Where, out: Output, path: string): Promise<void> {
  if (at.redis !== undefined) throw new UsageError(`backup: ${FILES_ONLY}`)
  if (existsSync(path)) throw invalid(`path: ${path} is there already: choose a new name`)
  const { store } = await openStore(at)
  const files: Array<{ file: string, bytes: number }> = []
  const copied = (file: string): void => void files.push({ file, bytes: statSync(file).size })
  try {
    const target = join(path, 'store')
    mkdirSync(target, { recursive: true, mode: 0o700 })
    await (store as FileStoreAdapter).backup(join(target, 'nvent.db'))
    copied(join(target, 'nvent.db'))
  }
  catch (error) {
    throw error instanceof NventError ? error : new NventError('NVENT_IO', `${path}: ${(error as Error).message}`)
  }
  finally {
    await store.close()
  }
  const queues = openQueues(at)
  if (queues) {
    const target = join(path, 'queue')
    mkdirSync(target, { recursive: true, mode: 0o700 })
    callSync(() => queues.reader.backup(join(target, 'queue.db')))
    copied(join(target, 'queue.db'))
  }
  if (out.json) return out.rows(files)
  for (const { file, bytes } of files) await out.line(`${file}  ${(bytes / 1024 / 1024).toFixed(1)} MB`)
  await out.line(out.style('dim', `to look into it: nvent-native runs --dir ${path}`))
}
