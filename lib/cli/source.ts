import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { NventError } from '../errors'
import { RedisStoreAdapter } from '../redis'
import { FileStoreAdapter } from '../store'
import type { NventStoreAdapter } from '../store'
import { addon, callSync } from '../native'
import { UsageError } from './output'

/** Where the data is, as options and environment say. */
export interface Where { dir: string, redis: string | undefined, prefix: string | undefined }

export function where(args: Record<string, any>): Where {
  const { NVENT_DIR, NVENT_REDIS, NVENT_PREFIX } = process.env
  if (args['dir'] !== undefined && args['redis'] !== undefined) throw new UsageError('--dir and --redis exclude each other')
  const redis = args['redis'] ?? (args['dir'] === undefined ? NVENT_REDIS || undefined : undefined)
  return { dir: args['dir'] ?? (NVENT_DIR || '.data'), redis, prefix: args['prefix'] ?? (NVENT_PREFIX || undefined) }
}

/** Returns the folder of the store: the directory itself, or `store` in it. */
export const storeDir = (dir: string): string => existsSync(join(dir, 'nvent.db')) ? dir : join(dir, 'store')

/** Returns the folder of the queues: beside the store. */
export function queueDir(dir: string): string {
  const found = [dir, join(dir, 'queue'), join(dirname(storeDir(dir)), 'queue')].find(at => existsSync(join(at, 'queue.db')))
  return found ?? join(dir, 'queue')
}

/** Returns whether a file is locked, where the system says so. A process that has closed a store leaves its pid in the lock file. */
function isLocked(file: string): boolean | undefined {
  if (process.platform !== 'linux') return
  try {
    const inode = `:${statSync(file).ino} `
    return readFileSync('/proc/locks', 'utf8').includes(inode)
  }
  catch {
    return
  }
}

/** Returns the pid in a lock file, if a process of it is there and has the lock. */
export function holder(dir: string, lock: 'nvent.lock' | 'queue.lock'): number | undefined {
  let pid: number
  try {
    pid = Number(readFileSync(join(dir, lock), 'utf8'))
  }
  catch {
    return
  }
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid || isLocked(join(dir, lock)) === false) return
  try {
    process.kill(pid, 0)
    return pid
  }
  catch (error) {
    // It is another user's.
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? pid : undefined
  }
}

export interface Source { store: NventStoreAdapter, kind: 'file' | 'redis', name: string, heldBy?: number | undefined, dir?: string }

/** Opens the store: without its lock, unless it is to be written to. */
export async function openStore(at: Where, { write = false, create = false } = {}): Promise<Source> {
  if (at.redis !== undefined) {
    const store = new RedisStoreAdapter({ bus: null, connection: { url: at.redis }, ...at.prefix === undefined ? {} : { prefix: at.prefix } })
    await store.init()
    const { ok, detail } = await store.health()
    if (!ok) {
      await store.close()
      throw new NventError('NVENT_UNAVAILABLE', `Redis: ${detail ?? 'is not reachable'}`)
    }
    return { store, kind: 'redis', name: 'Redis' }
  }
  const dir = storeDir(at.dir)
  if (!create && !existsSync(join(dir, 'nvent.db'))) {
    throw new NventError('NVENT_NOT_FOUND', `${join(dir, 'nvent.db')}: there is no store here; say where it is with --dir, or --redis for one on Redis`)
  }
  const heldBy = holder(dir, 'nvent.lock')
  const store = new FileStoreAdapter({ bus: null, dataDir: dir, ...write ? {} : { readOnly: true } })
  try {
    await store.init()
  }
  catch (error) {
    await store.close()
    if (!write || !(error instanceof NventError) || error.code !== 'NVENT_LOCKED') throw error
    throw new NventError('NVENT_LOCKED', `${error.message.replace(/: end it, or use another dataDir$/, '')}, and this command writes: stop the application, or do it there (store.replay)`, { retryable: true })
  }
  return { store, kind: 'file', name: dir, heldBy, dir }
}

export interface QueueReader {
  queues(): string
  jobs(queue: string, states: string[], offset: number, limit: number): string
  backup(path: string): void
  verify(): string[]
}

/** Opens the queues of the directory to read them, or returns undefined where there are none. */
export function openQueues(at: Where): { reader: QueueReader, dir: string } | undefined {
  const dir = queueDir(at.dir)
  if (at.redis !== undefined || !existsSync(join(dir, 'queue.db'))) return
  return { reader: callSync(() => new addon.NativeQueueReader(dir)), dir }
}
