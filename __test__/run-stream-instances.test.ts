/** Runs that are followed through a proxy that sends every connection to the next of two instances. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, get, request, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { RedisStoreAdapter, type EventRecord } from 'nvent-native'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RedisServer } from './support/redis'

const EVENTS = 300
const CLIENTS = 20
/** The proxy cuts a connection after so many events, so that every client comes to both instances again and again. */
const CUT = 25

let redis: RedisServer, instances: ChildProcess[], proxy: Server
const served = [0, 0]

beforeAll(async () => {
  redis = await RedisServer.start()
  const script = fileURLToPath(new URL('fixtures/serves-runs.mjs', import.meta.url))
  instances = [0, 1].map(() => fork(script, [String(redis.port)], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] }))
  const ports = await Promise.all(instances.map(async instance => Number((await once(instance.stdout!, 'data'))[0])))
  let turn = 0
  proxy = createServer((req, res) => {
    const at = turn++ % 2
    served[at]!++
    const upstream = request({ port: ports[at], path: req.url, headers: req.headers, agent: false }, (answer) => {
      res.writeHead(answer.statusCode!, answer.headers)
      let events = 0
      answer.setEncoding('utf8').on('data', (text: string) => {
        res.write(text)
        events += text.split('\ndata: ').length - 1
        if (events >= CUT) upstream.destroy()
      })
      answer.on('end', () => res.end()).on('error', () => res.destroy()).on('close', () => res.destroy())
    }).on('error', () => res.destroy())
    res.on('close', () => upstream.destroy())
    upstream.end()
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
})
afterAll(async () => {
  proxy?.closeAllConnections()
  proxy?.close()
  instances?.forEach(instance => instance.kill('SIGKILL'))
  await redis?.stop()
})

/** One connection, as a browser reads it. Resolves with its status when it has ended, however that was. */
function connect(path: string, lastId: string | undefined, onEvent: (event: EventRecord) => void): Promise<number> {
  return new Promise((resolve) => {
    const { port } = proxy.address() as AddressInfo
    const headers = lastId === undefined ? {} : { 'last-event-id': lastId }
    get({ port, path, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
          const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1]
          if (data !== undefined) onEvent(JSON.parse(data))
        }
      })
      response.on('error', () => {}).on('close', () => resolve(response.statusCode!))
    }).on('error', () => resolve(0))
  })
}

/** Follows a run to its end, coming again with the id of the last event whenever the connection ends. */
async function follow(runId: string): Promise<EventRecord[]> {
  const seen: EventRecord[] = []
  while (await connect(`/${runId}`, seen.at(-1)?.id, event => seen.push(event)) !== 204);
  return seen
}

test('every client sees every event once and in order', async () => {
  const writers = [0, 1].map(() => new RedisStoreAdapter({ bus: null, connection: { port: redis.port } }))
  await writers[0]!.append('nq:flow:r', { type: 'flow.start', runId: 'r', data: { n: -1 } })
  const following = Array.from({ length: CLIENTS }, () => follow('r'))
  for (let n = 0; n < EVENTS; n++) await writers[n % 2]!.append('nq:flow:r', { type: 'log', runId: 'r', data: { n } })
  await writers[0]!.append('nq:flow:r', { type: 'flow.completed', runId: 'r', data: { n: EVENTS } })
  const log = (await writers[0]!.stream.read('nq:flow:r')).map(({ id }) => id)
  expect(log).toHaveLength(EVENTS + 2)
  for (const seen of await Promise.all(following)) expect(seen.map(({ id }) => id)).toEqual(log)
  expect(Math.min(...served)).toBeGreaterThan(CLIENTS)
  await Promise.all(writers.map(store => store.close()))
})
