import { once } from 'node:events'
import { createServer, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createApp, eventHandler, toNodeListener } from 'h3'
import { MemoryStoreAdapter } from 'nvent-native'
import { expect, test } from 'vitest'
import { followHead } from '../../dist/nuxt/runtime/inspector/head.js'
import { sendEvents } from '../../dist/nuxt/runtime/sse.js'

test('a client that disconnects aborts the signal of its request, also after the request was collected', async () => {
  setFlagsFromString('--expose-gc')
  const store = new MemoryStoreAdapter({ bus: null })
  let aborted!: Promise<unknown>
  const app = createApp().use(eventHandler(event => sendEvents(event, ({ signal }) => {
    aborted = once(signal, 'abort')
    return followHead(store, signal)
  })))
  const server = createServer(toNodeListener(app)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const [response] = await once(get({ port: (server.address() as AddressInfo).port, agent: false }), 'response') as [IncomingMessage]
  expect([response.statusCode, response.headers['content-type']]).toEqual([200, 'text/event-stream; charset=utf-8'])
  expect(String((await once(response, 'data'))[0])).toContain('event: head')
  // What was dereferenced in a turn is kept until its end.
  for (let n = 0; n < 3; n++) {
    await turn()
    runInNewContext('gc')()
  }
  response.destroy()
  await aborted
  server.close()
  await store.close()
})
