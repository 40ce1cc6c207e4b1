import { createHmac, timingSafeEqual } from 'node:crypto'
import { invalid } from '../errors'

/** Signatures as Standard Webhooks has them: `v1,` and the base64 of an HMAC-SHA256 of `{id}.{timestamp}.{body}`. */

const PREFIX = 'whsec_'
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/
/** What the header of a request may have. */
const MAX_SIGNATURES = 32

/** Returns the key of a secret: base64, with or without `whsec_`. `what` names it in messages, which do not contain it. */
export function decodeSecret(what: string, secret: string): Buffer {
  const encoded = secret.startsWith(PREFIX) ? secret.slice(PREFIX.length) : secret
  const key = BASE64.test(encoded) ? Buffer.from(encoded, 'base64') : Buffer.alloc(0)
  if (key.length === 0) throw invalid(`${what}: expected ${JSON.stringify(PREFIX)} and base64`)
  return key
}

/** Returns whether one of the signatures in a header was made with one of the keys. The time does not tell which, nor how much of it. */
export function verifySignature(keys: Buffer[], signed: { id: string, timestamp: string, body: Buffer }, header: string): boolean {
  const given = header.split(' ', MAX_SIGNATURES).flatMap(one => one.startsWith('v1,') ? [Buffer.from(one.slice(3), 'base64')] : [])
  let valid = false
  for (const key of keys) {
    const expected = createHmac('sha256', key).update(`${signed.id}.${signed.timestamp}.`).update(signed.body).digest()
    for (const signature of given) {
      if (signature.length === expected.length && timingSafeEqual(signature, expected)) valid = true
    }
  }
  return valid
}
