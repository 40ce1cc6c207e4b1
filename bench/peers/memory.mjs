/**
 * The contract of a store in plain JavaScript: maps, and per index one array that is kept in order.
 * `copy` is applied to what comes in and what goes out; without it objects are shared with the caller, as nvent's own
 * memory adapter does.
 */
export class JavaScriptStore {
  subjects = new Map()
  values = new Map()
  indexes = new Map()

  constructor({ copy = value => value, announce = () => {} } = {}) {
    this.copy = copy
    this.announce = announce
  }

  async append(subject, event) {
    let log = this.subjects.get(subject)
    if (!log) this.subjects.set(subject, log = { ms: 0, seq: 0, events: [] })
    const ts = Date.now()
    if (ts > log.ms) {
      log.ms = ts
      log.seq = 0
    }
    else log.seq += 1
    const record = { ...this.copy(event), id: `${log.ms}-${log.seq}`, ts }
    log.events.push(record)
    this.announce(subject, record)
    return this.copy(record)
  }

  async read(subject, { types, limit = Infinity, order } = {}) {
    const events = this.subjects.get(subject)?.events ?? []
    if (!types && limit === Infinity && order !== 'desc') return events.map(event => this.copy(event))
    const found = []
    const step = order === 'desc' ? -1 : 1
    for (let i = step > 0 ? 0 : events.length - 1; i >= 0 && i < events.length && found.length < limit; i += step) {
      if (!types || types.includes(events[i].type)) found.push(this.copy(events[i]))
    }
    return found
  }

  async get(key) {
    const entry = this.values.get(key)
    return entry && entry.expires > Date.now() ? this.copy(entry.value) : null
  }

  async set(key, value, ttl) {
    this.values.set(key, { value: this.copy(value), expires: ttl ? Date.now() + ttl * 1000 : Infinity })
  }

  async increment(key, by = 1) {
    const entry = this.values.get(key)
    if (entry && entry.expires > Date.now()) return entry.value += by
    this.values.set(key, { value: by, expires: Infinity })
    return by
  }

  async indexAdd(key, id, score, metadata) {
    let index = this.indexes.get(key)
    if (!index) this.indexes.set(key, index = { entries: new Map(), order: [] })
    const old = index.entries.get(id)
    if (old) index.order.splice(position(index.order, old), 1)
    const entry = { id, score, metadata: { ...this.copy(metadata), version: 0 } }
    index.entries.set(id, entry)
    index.order.splice(position(index.order, entry), 0, entry)
  }

  async indexGet(key, id) {
    const entry = this.indexes.get(key)?.entries.get(id)
    return entry ? this.copy(entry) : null
  }

  async indexRead(key, { offset = 0, limit = 50, filter } = {}) {
    const order = this.indexes.get(key)?.order ?? []
    if (!filter) return order.slice(offset, offset + limit).map(entry => this.copy(entry))
    const wanted = Object.entries(filter)
    const found = []
    let skip = offset
    for (const entry of order) {
      if (!wanted.every(([field, value]) => matches(entry.metadata[field], value))) continue
      if (skip-- > 0) continue
      found.push(this.copy(entry))
      if (found.length === limit) break
    }
    return found
  }

  async indexUpdate(key, id, patch) {
    const entry = this.indexes.get(key)?.entries.get(id)
    if (!entry) return false
    merge(entry.metadata, this.copy(patch))
    entry.metadata.version += 1
    return true
  }

  async indexIncrement(key, id, field, by = 1) {
    const entry = this.indexes.get(key)?.entries.get(id)
    if (!entry) throw new Error('Entry not found')
    entry.metadata.version += 1
    return entry.metadata[field] = (entry.metadata[field] ?? 0) + by
  }
}

const matches = (actual, wanted) => Array.isArray(wanted) ? wanted.includes(actual) : actual === wanted

/** Where an entry is, or belongs: highest score first, then by id. */
function position(order, { score, id }) {
  let low = 0
  let high = order.length
  while (low < high) {
    const middle = (low + high) >> 1
    const other = order[middle]
    if (other.score > score || (other.score === score && other.id < id)) low = middle + 1
    else high = middle
  }
  return low
}

export function merge(target, patch) {
  for (const [field, value] of Object.entries(patch)) {
    if (value === null || value === undefined) delete target[field]
    else if (isObject(value) && isObject(target[field])) merge(target[field], value)
    else target[field] = value
  }
}

const isObject = value => typeof value === 'object' && value !== null && !Array.isArray(value)

/** A copy of plain data by hand, the fastest that JavaScript has. */
export function copyByHand(value) {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(copyByHand)
  const copy = {}
  for (const key in value) copy[key] = copyByHand(value[key])
  return copy
}
