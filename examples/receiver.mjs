/** A server that receives webhooks, as anybody's could be: it verifies the signature before it looks at the body. */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'

const MAX_AGE_S = 300

/** Starts a receiver on a free port. `onEvent` gets the id of the delivery and the event. */
export async function startReceiver(secret, onEvent) {
  const seen = new Set()
  const server = createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const body = Buffer.concat(chunks)
    const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signatures = '' } = request.headers
    if (!isSigned(secret, `${id}.${timestamp}.`, body, signatures) || Math.abs(Date.now() / 1000 - timestamp) > MAX_AGE_S) {
      response.writeHead(401).end()
      return
    }
    response.end()
    // A delivery may come twice, under the same id.
    if (seen.has(id)) return
    seen.add(id)
    onEvent(id, JSON.parse(body).data)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    async stop() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

/** Standard Webhooks; any of its libraries does the same: https://www.standardwebhooks.com */
function isSigned(secret, prefix, body, signatures) {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const expected = createHmac('sha256', key).update(prefix).update(body).digest()
  return signatures.split(' ').some((signature) => {
    const given = Buffer.from(signature.replace(/^v1,/, ''), 'base64')
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
}
