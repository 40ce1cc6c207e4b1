import { accessSync, constants, existsSync, statfsSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { addon } from '../native'
import type { Output } from './output'
import { holder, openQueues, openStore, queueDir, storeDir } from './source'
import type { Where } from './source'
import { isNodeSupported, isRedisSupported } from './versions'
import { version } from '../../package.json'

type Level = 'ok' | 'warning' | 'problem'
interface Check { check: string, level: Level, found: string, todo?: string }

/** Free space that is less than this is a warning, or a problem. */
const LOW_SPACE = 1 << 30
const NO_SPACE = 64 << 20

/** Looks at what the package needs. Returns whether there is no problem. */
export async function doctor(at: Where, out: Output): Promise<boolean> {
  const checks: Check[] = []
  const add = (check: string, level: Level, found: string, todo?: string): void => void checks.push({ check, level, found, ...todo === undefined ? {} : { todo } })
  add('package', 'ok', `nvent-native ${version}`)
  const usable = isNodeSupported(process.versions.node)
  add('node', usable ? 'ok' : 'problem', process.version, usable ? undefined : 'use Node 20.19, 22.12, or 24 and later')
  const glibc = (process.report?.getReport() as any)?.header?.glibcVersionRuntime
  add('platform', 'ok', `${process.platform} ${process.arch}${process.platform === 'linux' ? glibc ? `, glibc ${glibc}` : ', musl' : ''}`)
  // It is loaded: otherwise the command would have ended with what to do.
  add('addon', 'ok', `loaded, SQLite ${addon.NativeStore.sqliteVersion()}`)
  if (at.redis === undefined) await checkDirectory(at, add)
  else await checkRedis(at.redis, add)
  if (out.json) await out.rows(checks)
  else {
    const marks = { ok: out.style('green', 'ok     '), warning: out.style('yellow', 'warning'), problem: out.style('red', 'problem') }
    for (const { check, level, found, todo } of checks) {
      await out.line(`${marks[level]}  ${check.padEnd(12)}  ${found}`)
      if (todo) await out.line(`${' '.repeat(23)}${out.style('bold', 'what to do:')} ${todo}`)
    }
  }
  return checks.every(({ level }) => level !== 'problem')
}

type Add = (check: string, level: Level, found: string, todo?: string) => void

async function checkDirectory(at: Where, add: Add): Promise<void> {
  const dir = resolve(storeDir(at.dir))
  if (!existsSync(dir)) {
    add('directory', 'problem', `${dir} is not there`, 'say where the data is with --dir; the application creates it when it starts')
    return
  }
  const mode = statSync(dir).mode & 0o777
  add('directory', 'ok', dir)
  try {
    accessSync(dir, constants.R_OK | constants.W_OK | constants.X_OK)
    add('writable', 'ok', 'yes')
  }
  catch {
    add('writable', 'problem', 'not by this user', `run the application as the owner of ${dir}, or chown it`)
  }
  if (process.platform !== 'win32') {
    const open = (mode & 0o077) !== 0
    add('permissions', open ? 'warning' : 'ok', mode.toString(8), open ? `others can read the data: chmod 700 ${dir}` : undefined)
  }
  const { bavail, bsize } = statfsSync(dir)
  const free = bavail * bsize
  add('free space', free < NO_SPACE ? 'problem' : free < LOW_SPACE ? 'warning' : 'ok', `${(free / (1 << 30)).toFixed(1)} GB`,
    free < LOW_SPACE ? 'make room, or set store.file.retention: a full disk stops the store' : undefined)
  for (const [name, held, file] of [['store lock', holder(dir, 'nvent.lock'), 'nvent.db'], ['queue lock', holder(resolve(queueDir(at.dir)), 'queue.lock'), 'queue.db']] as const) {
    if (name === 'store lock' || existsSync(join(queueDir(at.dir), file))) {
      add(name, 'ok', held === undefined ? 'no process has it open' : `process ${held} has it open: replay and import are refused until it ends`)
    }
  }
  if (!existsSync(join(dir, 'nvent.db'))) {
    add('store', 'problem', 'there is no nvent.db', 'say where the data is with --dir; the application creates it when it starts')
    return
  }
  try {
    const { store } = await openStore(at)
    const head = await store.feed.head()
    const parked = (await store.consumers()).reduce((sum, consumer) => sum + consumer.parked, 0)
    await store.close()
    add('store', 'ok', `can be read, ${head ?? 0} events were stored`)
    if (parked > 0) add('parked', 'warning', `${parked} events`, '`nvent-native parked` says why; `nvent-native replay` delivers them again')
  }
  catch (error) {
    add('store', 'problem', (error as Error).message, 'see the message; `nvent-native verify` reads every row')
  }
  try {
    if (openQueues(at)) add('queue', 'ok', 'can be read')
  }
  catch (error) {
    add('queue', 'problem', (error as Error).message, 'see the message')
  }
}

/** What the store calls on Redis. A user whose ACL lacks one of these cannot run it. */
const COMMANDS = ['evalsha', 'script|load', 'xadd', 'xrange', 'xrevrange', 'xlen', 'hset', 'hget', 'hgetall', 'zadd', 'zrange', 'zscore', 'get', 'set', 'del', 'unlink', 'scan', 'publish', 'subscribe', 'psubscribe', 'pexpire', 'time', 'info']

async function checkRedis(url: string, add: Add): Promise<void> {
  const { Redis } = await import('ioredis')
  let client: InstanceType<typeof Redis>
  try {
    client = new Redis(url, { lazyConnect: true, maxRetriesPerRequest: 0, connectTimeout: 5_000, retryStrategy: () => null })
    client.on('error', () => {})
    await client.connect()
  }
  catch (error) {
    add('Redis', 'problem', `is not reachable: ${(error as Error).message}`, 'check the url, that the server runs, and the firewall')
    return
  }
  try {
    const info = Object.fromEntries((await client.info()).split('\r\n').filter(line => line.includes(':')).map(line => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]))
    const { redis_version: server = '', role, cluster_enabled: cluster, maxmemory_policy: policy, aof_enabled: aof, rdb_last_bgsave_status: rdb } = info
    const modern = isRedisSupported(server)
    add('Redis', modern ? 'ok' : 'problem', `version ${server}`, modern ? undefined : 'use Redis 6.2 or newer')
    add('role', role === 'master' ? 'ok' : 'problem', role ?? 'unknown', role === 'master' ? undefined : 'connect to the master; with Sentinel give sentinels and name')
    add('cluster', cluster === '1' ? 'problem' : 'ok', cluster === '1' ? 'is in cluster mode' : 'no', cluster === '1' ? 'Redis Cluster is not supported: use one master, with replicas and Sentinel' : undefined)
    add('eviction', policy === 'noeviction' ? 'ok' : 'problem', policy ?? 'unknown', policy === 'noeviction' ? undefined : 'CONFIG SET maxmemory-policy noeviction: otherwise events are removed when memory is short')
    const save = await client.config('GET', 'save').then((found: any) => String(found?.[1] ?? ''), () => undefined)
    const persistent = aof === '1' || save === undefined || save !== ''
    add('persistence', persistent ? rdb === 'err' ? 'problem' : 'ok' : 'warning', aof === '1' ? 'append-only file' : persistent ? 'snapshots' : 'off',
      rdb === 'err' ? 'the last snapshot failed: see the log of Redis' : persistent ? undefined : 'CONFIG SET appendonly yes: otherwise a restart loses everything')
    await checkAcl(client, add)
  }
  catch (error) {
    add('Redis', 'problem', (error as Error).message, 'see the message')
  }
  finally {
    client.disconnect()
  }
}

async function checkAcl(client: any, add: Add): Promise<void> {
  let user: string
  try {
    user = await client.call('ACL', 'WHOAMI')
  }
  catch {
    add('ACL', 'ok', 'cannot be asked')
    return
  }
  const missing: string[] = []
  try {
    for (const command of COMMANDS) {
      const [name, sub] = command.split('|')
      // It looks at the number of arguments first; which keys they are is another matter.
      const [info] = await client.call('COMMAND', 'INFO', command)
      const count = Math.abs(info?.[1] ?? 1) - (sub ? 2 : 1)
      const reply: unknown = await client.call('ACL', 'DRYRUN', user, name!, ...sub ? [sub] : [], ...Array<string>(Math.max(0, count)).fill('0'))
      if (/no permissions to run/.test(String(reply))) missing.push(command)
    }
  }
  catch (error) {
    add('ACL', 'ok', `user ${user}; its rights cannot be asked (${(error as Error).message})`)
    return
  }
  add('ACL', missing.length === 0 ? 'ok' : 'problem', `user ${user}${missing.length === 0 ? '' : ` may not run ${missing.join(', ')}`}`,
    missing.length === 0 ? undefined : `ACL SETUSER ${user} ${missing.map(command => `+${command}`).join(' ')}`)
}
