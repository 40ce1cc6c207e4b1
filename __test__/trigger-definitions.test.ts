import type { TriggerDefinition } from 'nvent-native'
import { createEventBus, createTriggerWiring, createWiringRegistry, defineFlow, MemoryQueueAdapter, MemoryStoreAdapter, MemoryStreamAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { rejects } from './support/until'

const flows = [defineFlow('mail', { only: { run: () => {} } }), { id: 'headless', steps: {} }]
const defining = (...triggers: any[]) => () => createTriggerWiring({ flows, triggers })
const on = { manual: true }

it.each<[what: string, trigger: any, message: RegExp]>([
  ['no object', 5, /^triggers\[0\]: expected an object/],
  ['no id', { on, start: 'mail' }, /triggers\[0\]\.id: required/],
  ['an endless id', { id: 'x'.repeat(201), on, start: 'mail' }, /at most 200/],
  ['an unknown option', { id: 'a', on, start: 'mail', debonce: {} }, /debonce: unknown option; did you mean "debounce"/],
  ['an unknown source', { id: 'a', on: { evnt: 'x' }, start: 'mail' }, /on\.evnt: unknown option; did you mean "event"/],
  ['no source', { id: 'a', on: {}, start: 'mail' }, /exactly one of event, schedule, webhook, manual/],
  ['two sources', { id: 'a', on: { event: 'x', manual: true }, start: 'mail' }, /got event and manual/],
  ['a filter of a schedule', { id: 'a', on: { schedule: '* * * * *', filter: {} }, start: 'mail' }, /on\.filter: only goes with event/],
  ['a time zone of an event', { id: 'a', on: { event: 'x', timezone: 'UTC' }, start: 'mail' }, /on\.timezone: only goes with schedule/],
  ['a flow of a webhook', { id: 'a', on: { webhook: { secret: 'x' }, flow: 'mail' }, start: 'mail' }, /on\.flow: only goes with event/],
  ['undefined in a filter', { id: 'a', on: { event: 'x', filter: { 'data.a': undefined } }, start: 'mail' }, /on\.filter\.data\.a: undefined/],
  ['a filter of a Map', { id: 'a', on: { event: 'x', filter: new Map([['data.a', 1]]) }, start: 'mail' }, /on\.filter: expected the fields/],
  ['no event', { id: 'a', on: { event: [] }, start: 'mail' }, /on\.event: expected at least one/],
  ['a bad pattern', { id: 'a', on: { schedule: '61 * * * *' }, start: 'mail' }, /triggers\[0\]\.on\.schedule: "61 \* \* \* \*" is no cron pattern/],
  ['three fields', { id: 'a', on: { schedule: '* * *' }, start: 'mail' }, /on\.schedule: .* has 3 fields/],
  ['a bad time zone', { id: 'a', on: { schedule: '* * * * *', timezone: 'Mars/Olympus' }, start: 'mail' }, /on\.timezone: "Mars\/Olympus"/],
  ['a bad secret', { id: 'a', on: { webhook: { secret: 'whsec_!' } }, start: 'mail' }, /on\.webhook\.secret: expected whsec_ and base64/],
  ['no secret', { id: 'a', on: { webhook: { secret: [] } }, start: 'mail' }, /on\.webhook\.secret: expected at least one/],
  ['an unknown flow', { id: 'a', on, start: 'mial' }, /triggers\[0\]\.start: there is no flow "mial"; did you mean "mail"/],
  ['a flow without entry', { id: 'a', on, start: 'headless' }, /no entry/],
  ['a flow twice', { id: 'a', on, start: ['mail', 'mail'] }, /names a flow twice/],
  ['no wait', { id: 'a', on: { event: 'x' }, start: 'mail', debounce: {} }, /debounce\.wait: required/],
  ['a short maxWait', { id: 'a', on: { event: 'x' }, start: 'mail', debounce: { wait: 10, maxWait: 5 } }, /debounce\.maxWait: expected at least wait/],
  ['a debounced schedule', { id: 'a', on: { schedule: '* * * * *' }, start: 'mail', debounce: { wait: 10 } }, /debounce: only goes with event and webhook/],
])('%s is refused at the definition', async (_, trigger, message) => {
  await rejects(defining(trigger), 'NVENT_INVALID', message)
})

it('an id is there once', () => rejects(defining({ id: 'a', on, start: 'mail' }, { id: 'a', on, start: 'mail' }), 'NVENT_INVALID', /\[1\]\.id: "a" is the id of another trigger/))

it('the registry refuses them, too, and triggers without its flows', async () => {
  await rejects(() => createWiringRegistry({ flow: { flows: [flows[0]!] }, triggers: [{ id: 'a', on: { manual: true }, start: 'other' }] }), 'NVENT_INVALID', /there is no flow "other"/)
  await rejects(() => createWiringRegistry({ flow: false, triggers: [] }), 'NVENT_INVALID', /^triggers: .*flow is false/)
})

it('a function is called at each start, and checked then', async () => {
  let definitions: TriggerDefinition[] = [{ id: 'a', on: { manual: true }, start: 'nothing' }]
  const bus = createEventBus()
  await using store = new MemoryStoreAdapter({ bus })
  await using queue = new MemoryQueueAdapter()
  const registry = createWiringRegistry({ bus, store, queue, stream: new MemoryStreamAdapter(), flow: { flows: [flows[0]!] }, triggers: () => definitions })
  await rejects(registry.start() as Promise<void>, 'NVENT_INVALID', /there is no flow "nothing"/)
  await rejects(registry.triggers!.fire('a'), 'NVENT_CLOSED')
  definitions = [{ id: 'a', on: { manual: true }, start: 'mail' }]
  await registry.start()
  expect(await registry.triggers!.fire('a')).toMatchObject({ created: true })
  await registry.stop()
  definitions = [{ id: 'b', on: { manual: true }, start: 'mail' }]
  await registry.start()
  expect((await registry.triggers!.list()).map(({ id }) => id)).toEqual(['b'])
  await registry.stop()
})

it('a store without a feed is refused', async () => {
  const wiring = createTriggerWiring({ store: { append: async () => {} } as any, flows, triggers: [] })
  await rejects(wiring.start() as Promise<void>, 'NVENT_INVALID', /^store: triggers need a store of this package/)
})
