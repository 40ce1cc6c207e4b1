/**
 * What a Redis store does, on three clients. Each gives its own way to send a command and to run a script; the
 * operations are the same for all, one round trip each, in nvent's format.
 */
import { GlideClient, GlideClientConfiguration, Logger, Script } from '@valkey/valkey-glide'
import { Redis } from 'ioredis'
import { createClient } from 'redis'

// Otherwise it logs to the terminal when it is closed.
Logger.setLoggerConfig('off')

const SCRIPTS = {
  add: `redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])`,
  update: `if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return redis.call('HINCRBY', KEYS[1], 'version', 1)`,
  increment: `if redis.call('EXISTS', KEYS[1]) == 0 then return false end
redis.call('HINCRBY', KEYS[1], 'version', 1)
return redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])`,
  page: `local page = redis.call('ZREVRANGE', KEYS[1], ARGV[1], ARGV[2], 'WITHSCORES')
local entries = {}
for i = 1, #page, 2 do
  entries[#entries + 1] = { page[i], page[i + 1], redis.call('HGETALL', KEYS[1] .. ':meta:' .. page[i]) }
end
return cjson.encode(entries)`,
}
/** How many keys each takes. */
const KEYS = { add: 2, update: 1, increment: 1, page: 1 }

export async function ioredis(port) {
  const client = new Redis({ port, enableAutoPipelining: true })
  for (const [name, lua] of Object.entries(SCRIPTS)) client.defineCommand(name, { lua, numberOfKeys: KEYS[name] })
  return new Operations({
    command: (name, ...args) => client[name.toLowerCase()](...args),
    script: (name, keys, args) => client[name](...keys, ...args),
    close: () => client.quit(),
  })
}

/** node-redis sends what is asked for in one tick in one write. */
export async function nodeRedis(port) {
  const client = await createClient({ socket: { port } }).connect()
  const shas = {}
  for (const [name, lua] of Object.entries(SCRIPTS)) shas[name] = await client.scriptLoad(lua)
  return new Operations({
    command: (...args) => client.sendCommand(args.map(String)),
    script: (name, keys, args) => client.sendCommand(['EVALSHA', shas[name], String(keys.length), ...keys, ...args.map(String)]),
    close: () => client.close(),
  })
}

export async function glide(port) {
  const client = await GlideClient.createClient({ addresses: [{ host: '127.0.0.1', port }], requestTimeout: 10_000 })
  const scripts = Object.fromEntries(Object.entries(SCRIPTS).map(([name, lua]) => [name, new Script(lua)]))
  return new Operations({
    command: (...args) => client.customCommand(args.map(String)),
    script: (name, keys, args) => client.invokeScript(scripts[name], { keys, args: args.map(String) }),
    close: () => client.close(),
  })
}

/** Publish/subscribe by pattern, JSON both ways: a client that publishes and, where the protocol asks for it, one that subscribes. */
export async function ioredisPubSub(port) {
  const [client, hearing] = [new Redis({ port, enableAutoPipelining: true }), new Redis({ port })]
  return {
    publish: (topic, message) => client.publish(topic, JSON.stringify(message)),
    subscribe: async (pattern, handler) => {
      hearing.on('pmessage', (_, topic, text) => handler(JSON.parse(text), topic))
      await hearing.psubscribe(pattern)
    },
    close: () => Promise.all([client.quit(), hearing.quit()]),
  }
}

export async function nodeRedisPubSub(port) {
  const client = await createClient({ socket: { port } }).connect()
  const hearing = await client.duplicate().connect()
  return {
    publish: (topic, message) => client.publish(topic, JSON.stringify(message)),
    subscribe: (pattern, handler) => hearing.pSubscribe(pattern, (text, topic) => handler(JSON.parse(text), topic)),
    close: () => Promise.all([client.close(), hearing.close()]),
  }
}

/** glide's subscriptions are made with the client. */
export async function glidePubSub(port, patterns) {
  const options = { addresses: [{ host: '127.0.0.1', port }], requestTimeout: 10_000 }
  const client = await GlideClient.createClient(options)
  let handle
  const hearing = await GlideClient.createClient({
    ...options,
    pubsubSubscriptions: {
      channelsAndPatterns: { [GlideClientConfiguration.PubSubChannelModes.Pattern]: new Set(patterns) },
      callback: ({ message, channel }) => handle(JSON.parse(message), channel),
    },
  })
  return {
    publish: (topic, message) => client.publish(JSON.stringify(message), topic),
    subscribe: async (_, handler) => handle = handler,
    close: () => [client, hearing].forEach(client => client.close()),
  }
}

class Operations {
  constructor({ command, script, close }) {
    this.command = command
    this.script = script
    this.close = close
  }

  async append(subject, event) {
    const ts = Date.now()
    const id = await this.command('XADD', subject, 'MAXLEN', '~', 10_000, '*', 'ts', ts, ...fields(event))
    return { ...event, id, ts }
  }

  async read(subject) {
    const rows = await this.command('XRANGE', subject, '-', '+')
    return pairs(rows).map(([id, fields]) => ({ id, ...record(fields) }))
  }

  async set(key, value) {
    await this.command('SET', key, JSON.stringify(value))
  }

  async get(key) {
    return JSON.parse(await this.command('GET', key))
  }

  async increment(key) {
    return Number(await this.command('INCRBY', key, 1))
  }

  async indexAdd(key, id, score, metadata) {
    await this.script('add', [key, `${key}:meta:${id}`], [score, id, 'version', 0, ...flattened(metadata)])
  }

  async indexUpdate(key, id, patch) {
    return await this.script('update', [`${key}:meta:${id}`], flattened(patch)) > 0
  }

  async indexIncrement(key, id, field) {
    return Number(await this.script('increment', [`${key}:meta:${id}`], [field, 1]))
  }

  /** One script for the page, which is returned as one JSON text. */
  async indexRead(key) {
    const entries = JSON.parse(await this.script('page', [key], [0, 49]))
    return entries.map(([id, score, fields]) => ({ id, score: Number(score), metadata: unflattened(record(fields)) }))
  }

  /** As nvent's own adapter does it: one HGETALL after another. */
  async indexReadByEntry(key) {
    const ids = await this.command('ZREVRANGE', key, 0, 49)
    const entries = []
    for (const id of ids) entries.push({ id, metadata: unflattened(await this.command('HGETALL', `${key}:meta:${id}`)) })
    return entries
  }
}

const text = value => typeof value === 'object' ? JSON.stringify(value) : String(value)

function fields(object) {
  const flat = []
  for (const field in object) flat.push(field, text(object[field]))
  return flat
}

function flattened(object, prefix = '') {
  return Object.entries(object).flatMap(([field, value]) =>
    typeof value === 'object' && !Array.isArray(value) ? flattened(value, `${prefix}${field}.`) : [prefix + field, text(value)])
}

/** Pairs, in each of the ways in which clients give them: flat, in pairs, named, or as an object. */
function pairs(reply) {
  if (!Array.isArray(reply)) return Object.entries(reply)
  if (Array.isArray(reply[0])) return reply
  if (typeof reply[0] === 'object') return reply.map(({ key, value }) => [key, value])
  return Array.from({ length: reply.length / 2 }, (_, i) => [reply[2 * i], reply[2 * i + 1]])
}

const record = fields => Object.fromEntries(pairs(fields).map(([field, value]) => [field, parsed(value)]))

/** Types are guessed from text, as nvent's own adapter does. */
function parsed(value) {
  if (value[0] === '{' || value[0] === '[') return JSON.parse(value)
  return value !== '' && !Number.isNaN(Number(value)) ? Number(value) : value
}

function unflattened(flat) {
  const object = {}
  for (const [path, value] of Object.entries(flat)) {
    const parts = path.split('.')
    const last = parts.pop()
    let at = object
    for (const part of parts) at = at[part] ??= {}
    at[last] = value
  }
  return object
}
