/** What a file store does, on lmdb, better-sqlite3, and the JSON-file way. */
import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { open } from 'lmdb'
import { merge } from './memory.mjs'

/** Returns ids that increase strictly within a subject, as the contract requires. */
class Ids {
  last = new Map()

  next(subject) {
    const last = this.last.get(subject)
    const ts = Date.now()
    const id = last && last.ts >= ts ? { ts: last.ts, seq: last.seq + 1 } : { ts, seq: 0 }
    this.last.set(subject, id)
    return { ts, id: `${id.ts}-${id.seq}`, key: id.ts * 1024 + id.seq }
  }
}

/** lmdb with its asynchronous, batched writes. `disk` waits for the flush as well. */
export class Lmdb {
  ids = new Ids()

  constructor(path, disk) {
    this.db = open({ path, mapSize: 2 ** 33 })
    this.disk = disk
  }

  async append(subject, event) {
    const { ts, id, key } = this.ids.next(subject)
    const record = { ...event, id, ts }
    await this.settled(this.db.put(['e', subject, key], record))
    return record
  }

  async read(subject) {
    const records = []
    for (const { value } of this.db.getRange({ start: ['e', subject, 0], end: ['e', subject, Infinity] })) records.push(value)
    return records
  }

  async set(key, value) {
    await this.settled(this.db.put(['k', key], value))
  }

  async get(key) {
    return this.db.get(['k', key])
  }

  async indexAdd(key, id, score, metadata) {
    await this.settled(this.db.transaction(() => {
      const old = this.db.get(['i', key, id])
      if (old) this.db.remove(['o', key, -old.score, id])
      this.db.put(['i', key, id], { score, metadata: { ...metadata, version: 0 } })
      this.db.put(['o', key, -score, id], null)
    }))
  }

  async indexUpdate(key, id, patch) {
    await this.settled(this.db.transaction(() => {
      const entry = this.db.get(['i', key, id])
      merge(entry.metadata, patch)
      entry.metadata.version += 1
      this.db.put(['i', key, id], entry)
    }))
  }

  async indexRead(key, limit) {
    const entries = []
    for (const [, , score, id] of this.db.getKeys({ start: ['o', key, -Infinity], end: ['o', key, Infinity], limit })) {
      entries.push({ id, score: -score, metadata: this.db.get(['i', key, id]).metadata })
    }
    return entries
  }

  async settled(written) {
    await written
    if (this.disk) await this.db.flushed
  }

  close() {
    return this.db.close()
  }
}

/** better-sqlite3 in WAL mode. It is synchronous: what is in flight at the same time is one transaction. */
export class Sqlite {
  ids = new Ids()

  constructor(path, disk) {
    this.db = new Database(`${path}.db`)
    this.db.pragma('journal_mode = WAL')
    this.db.pragma(`synchronous = ${disk ? 'FULL' : 'NORMAL'}`)
    this.db.exec(`
      CREATE TABLE events (subject TEXT, id INTEGER, json TEXT, PRIMARY KEY (subject, id)) WITHOUT ROWID;
      CREATE TABLE kv (key TEXT PRIMARY KEY, json TEXT) WITHOUT ROWID;
      CREATE TABLE entries (key TEXT, id TEXT, score REAL, json TEXT, UNIQUE (key, id));
      CREATE INDEX newest ON entries (key, score DESC, id);`)
    const prepare = sql => this.db.prepare(sql)
    this.sql = {
      append: prepare('INSERT INTO events VALUES (?, ?, ?)'),
      read: prepare('SELECT json FROM events WHERE subject = ? ORDER BY id').pluck(),
      set: prepare('INSERT INTO kv VALUES (?, ?) ON CONFLICT DO UPDATE SET json = excluded.json'),
      get: prepare('SELECT json FROM kv WHERE key = ?').pluck(),
      add: prepare('INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET score = excluded.score, json = excluded.json'),
      entry: prepare('SELECT rowid, json FROM entries WHERE key = ? AND id = ?'),
      replace: prepare('UPDATE entries SET json = ? WHERE rowid = ?'),
      newest: prepare('SELECT id, score, json FROM entries WHERE key = ? ORDER BY score DESC, id LIMIT ?'),
    }
    this.together = this.db.transaction((n, operation) => {
      for (let i = 0; i < n; i++) operation(i)
    })
    this.indexUpdate = this.db.transaction((key, id, patch) => {
      const { rowid, json } = this.sql.entry.get(key, id)
      const metadata = JSON.parse(json)
      merge(metadata, patch)
      metadata.version += 1
      this.sql.replace.run(JSON.stringify(metadata), rowid)
    })
  }

  append(subject, event) {
    const { ts, id, key } = this.ids.next(subject)
    const record = { ...event, id, ts }
    this.sql.append.run(subject, key, JSON.stringify(record))
    return record
  }

  read(subject) {
    return this.sql.read.all(subject).map(json => JSON.parse(json))
  }

  set(key, value) {
    this.sql.set.run(key, JSON.stringify(value))
  }

  get(key) {
    return JSON.parse(this.sql.get.get(key))
  }

  indexAdd(key, id, score, metadata) {
    this.sql.add.run(key, id, score, JSON.stringify({ ...metadata, version: 0 }))
  }

  indexRead(key, limit) {
    return this.sql.newest.all(key, limit).map(({ id, score, json }) => ({ id, score, metadata: JSON.parse(json) }))
  }

  /** Transactions of `width` operations each. */
  inFlight(width, n, operation) {
    for (let done = 0; done < n; done += width) this.together(Math.min(width, n - done), i => operation(done + i))
  }

  close() {
    this.db.close()
  }
}

/** One file of lines per subject, and per index one file that is written anew with each change. Nothing is synced. */
export class JsonFiles {
  ids = new Ids()
  indexes = new Map()

  constructor(path) {
    this.path = path
  }

  async append(subject, event) {
    const { ts, id } = this.ids.next(subject)
    const record = { ...event, id, ts }
    await mkdir(this.path, { recursive: true })
    await appendFile(join(this.path, `${subject.replaceAll(':', '_')}.ndjson`), `${JSON.stringify(record)}\n`)
    return record
  }

  async indexAdd(key, id, score, metadata) {
    if (!this.indexes.has(key)) this.indexes.set(key, new Map())
    this.indexes.get(key).set(id, { id, score, metadata })
  }

  async indexUpdate(key, id, patch) {
    const index = this.indexes.get(key)
    merge(index.get(id).metadata, patch)
    await mkdir(this.path, { recursive: true })
    await writeFile(join(this.path, `${key}.json`), JSON.stringify([...index.values()]))
  }
}
