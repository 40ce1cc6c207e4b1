import { isStreamGap, MemoryStreamAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { streamConformance } from './conformance/stream'
import { Inbox, rejects, until } from './support/until'

streamConformance('memory', async () => ({
  open: ({ retain } = {}) => new MemoryStreamAdapter(retain === undefined ? {} : { retain: { maxEvents: retain } }),
  dispose: async () => {},
}), { backend: 'memory', shared: false, retainsExactly: true, groupAcknowledges: false })

it('lets what is retained go after maxAgeMs', async () => {
  const stream = new MemoryStreamAdapter({ retain: { maxAgeMs: 50 } })
  await stream.publish('t', { type: 'x', data: 1 })
  await until('nothing is retained', async () => {
    const inbox = new Inbox()
    const { unsubscribe } = await stream.subscribe('t', inbox.take, { fromBeginning: true })
    await stream.publish('t', { type: 'live', data: 2 })
    await until('the live one', () => inbox.items.some(event => event.type === 'live'))
    await unsubscribe()
    return inbox.items.every(event => event.type !== 'x')
  })
  await stream.shutdown()
})

it('refuses options that it does not know, and limits that are none', async () => {
  for (const options of [{ retan: {} }, { retain: { maxEvent: 1 } }, { retain: { maxEvents: 0 } }, { retain: { maxAgeMs: -1 } }, { retain: 5 }] as any[]) {
    await rejects(() => new MemoryStreamAdapter(options), 'NVENT_INVALID', /retain/)
  }
})

it.each([undefined, null, 'stream.gap', 5])('%j is no gap', (value) => {
  expect(isStreamGap(value as any)).toBe(false)
})
