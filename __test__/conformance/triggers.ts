import { afterEach, describe, expect, test } from 'vitest'
import type { FlowDefinition, QueueAdapter, StoreAdapter, TriggerDefinition, WiringRegistry } from 'nvent-native'
import { createEventBus, createWiringRegistry, defineFlow, MemoryStreamAdapter, startFlow } from 'nvent-native'
import { runIdOf } from '../../lib/trigger/names'
import { gate, rejects, until } from '../support/until'

export interface TriggerParts { store: StoreAdapter, queue: QueueAdapter }

const atLeast = <T>(count: number, list: T[]): T[] | undefined => list.length >= count ? list : undefined

/** Fires triggers on a store and a queue. `open` is given the bus to announce on. */
export function triggerSuite(name: string, open: (bus: ReturnType<typeof createEventBus>) => Promise<TriggerParts>): void {
  describe(name, () => {
    const closing: Array<() => Promise<unknown>> = []
    afterEach(async () => {
      for (const close of closing.splice(0).reverse()) await close()
    })

    const seen: any[] = []
    const first = defineFlow<{ n: number }>('first', { only: { run: ({ n }) => n } })
    const second = defineFlow('second', { only: { run: input => void seen.push(input) } })
    const third = defineFlow('third', { only: { run: () => 3 } })

    async function parts() {
      seen.length = 0
      const bus = createEventBus()
      const { store, queue } = await open(bus)
      const stream = new MemoryStreamAdapter()
      closing.push(() => store.close(), () => stream.shutdown(), () => queue.close())
      const start = async (triggers: TriggerDefinition[], flows: FlowDefinition[] = [first, second, third]): Promise<WiringRegistry> => {
        const registry = createWiringRegistry({ bus, store, queue, stream, flow: { flows }, triggers })
        await registry.start()
        closing.push(async () => registry.stop())
        return registry
      }
      const fired = (id: string) => store.read(`nq:trigger:${id}`, { types: ['trigger.fired'] })
      const runs = (flow: string) => store.index.read(`nq:flows:${flow}`, { limit: 5_000 })
      /** Resolves when the events stored so far were handled by a trigger. */
      const idle = async (id: string): Promise<void> => {
        await store.append('test:marks', { type: 'mark' })
        const head = (await store.feed.head())!
        const number = (position: string | null): number => Number(position?.split('-').at(-1) ?? 0)
        await until(`${id} has handled everything`, async () =>
          number((await store.consumers()).find(consumer => consumer.name === `trigger:${id}`)!.position) >= number(head))
      }
      return { store, queue, start, fired, runs, idle }
    }

    test('an event starts one run of each flow, with its data as input, and is recorded', async () => {
      const { store, start, fired, runs } = await parts()
      const { triggers } = await start([{ id: 'paid', on: { event: 'order.paid' }, start: ['second', 'third'] }])
      const { id } = await store.append('orders:1', { type: 'order.paid', data: { amount: 5 } })
      await store.append('orders:1', { type: 'order.shipped', data: {} })
      const [event] = await until('it has fired', async () => atLeast(1, await fired('paid')))
      expect(event!.data).toMatchObject({ cause: `orders:1@${id}`, kind: 'event', fired: 1, flows: ['second', 'third'] })
      await until('both have run', async () => (await runs('third'))[0]?.metadata.status === 'completed' && seen.length === 1)
      expect(seen).toEqual([{ amount: 5 }])
      const [run] = await until('it is in the index', async () => atLeast(1, await runs('second')))
      expect([run!.id, (await runs('third'))[0]!.id]).toEqual(event!.data.runIds)
      expect(await triggers!.list()).toEqual([{ id: 'paid', kind: 'event', enabled: true, fired: 1, lastFiredAt: event!.ts, parked: 0 }])
      expect(triggers!.stats()).toMatchObject({ triggers: 1, fired: 1, started: 2, failed: 0 })
    })

    test('a run that ends starts another flow, promptly', async () => {
      const { store, start, runs } = await parts()
      await start([{ id: 'then', on: { event: 'flow.completed', flow: 'first' }, start: 'second', input: ({ event }) => ({ after: event!.runId }) }])
      const { runId, result } = await startFlow(first, { n: 1 })
      await result()
      await until('it has run', () => seen.length === 1)
      expect(seen).toEqual([{ after: runId }])
      const [run] = await until('it is in the index', async () => atLeast(1, await runs('second')))
      expect((await store.read(`nq:flow:${run!.id}`, { types: ['flow.start'] }))[0]).toMatchObject({ trigger: { id: 'then', kind: 'event', depth: 1 } })
    })

    test('filters compare as those of an index do', async () => {
      const { store, start, fired, idle } = await parts()
      const filters: Record<string, any> = {
        equal: { 'data.kind': 'a' }, list: { 'data.kind': ['b', 'c'] }, none: { 'data.missing': null }, deep: { 'data.to': { city: 'X', zip: [1] } }, top: { stepName: 's' },
      }
      await start(Object.entries(filters).map(([id, filter]) => ({ id, on: { event: 'f.*', filter }, start: 'third' })))
      await store.append('f', { type: 'f.1', data: { kind: 'a', missing: 1 } })
      await store.append('f', { type: 'f.2', data: { kind: 'c', to: { zip: [1], city: 'X' } } })
      await store.append('f', { type: 'f.3', stepName: 's', data: { missing: null, to: { zip: [1, 2], city: 'X' } } })
      await store.append('g', { type: 'g.1', data: { kind: 'a' } })
      const counts: Record<string, number> = {}
      for (const id of Object.keys(filters)) {
        await idle(id)
        counts[id] = (await fired(id)).length
      }
      expect(counts).toEqual({ equal: 1, list: 1, none: 2, deep: 1, top: 1 })
    })

    test('fire starts the runs of any trigger, and with the same key nothing again', async () => {
      const { start, fired, runs } = await parts()
      const { triggers } = await start([
        { id: 'hand', on: { manual: true }, start: ['second', 'third'] },
        { id: 'event', on: { event: 'x' }, start: 'third', input: ({ data, kind }) => ({ data, kind }) },
      ])
      const one = await triggers!.fire('hand', { a: 1 }, { idempotencyKey: 'k' })
      expect(one).toEqual({ created: true, runIds: [expect.stringMatching(/^hand-[0-9a-f]{32}$/), expect.any(String)] })
      expect(await triggers!.fire('hand', { a: 2 }, { idempotencyKey: 'k' })).toEqual({ created: false, runIds: one.runIds })
      const both = await Promise.all([triggers!.fire('hand', 1, { idempotencyKey: 'l' }), triggers!.fire('hand', 1, { idempotencyKey: 'l' })])
      expect(both.map(({ created }) => created).sort()).toEqual([false, true])
      const others = await Promise.all([triggers!.fire('hand'), triggers!.fire('hand'), triggers!.fire('event', 7)])
      expect(new Set(others.flatMap(({ runIds }) => runIds)).size).toBe(5)
      await until('all have run', () => seen.length === 4)
      expect(seen.filter(input => input?.a)).toEqual([{ a: 1 }])
      expect((await fired('hand')).map(({ data }) => data.fired)).toEqual([1, 2, 3, 4])
      await until('all are in the index', async () => (await runs('third')).length === 5)
    })

    test('what is not known, disabled or thrown rejects', async () => {
      const { start, fired } = await parts()
      const { triggers } = await start([
        { id: 'hand', on: { manual: true }, start: 'third', enabled: false },
        { id: 'bad', on: { manual: true }, start: 'third', input: () => { throw new Error('no input') } },
        { id: 'later', on: { manual: true }, start: 'third', input: async () => ({ n: 1n }) },
      ])
      await rejects(triggers!.fire('hnad'), 'NVENT_NOT_FOUND', /did you mean "hand"/)
      await rejects(triggers!.fire('hand'), 'NVENT_INVALID', /disabled/)
      await expect(triggers!.fire('bad')).rejects.toThrow('no input')
      expect(await fired('bad')).toEqual([])
      await triggers!.enable('hand')
      expect(await triggers!.fire('hand')).toMatchObject({ created: true })
      expect(await fired('hand')).toHaveLength(1)
      await rejects(triggers!.fire('hand', 1n), 'NVENT_INVALID', /data/)
      await rejects(triggers!.fire('later'), 'NVENT_INVALID', /^input\.n: a BigInt has no JSON/)
    })

    test('what came while it was disabled does not fire, also not after a restart', async () => {
      const { store, start, fired, idle } = await parts()
      const definition: TriggerDefinition = { id: 'gate', on: { event: 'g' }, start: 'third', input: ({ data }) => data }
      const before = await start([definition])
      await store.append('g', { type: 'g', data: 1 })
      await until('the first has fired', async () => (await fired('gate')).length === 1)
      await before.triggers!.disable('gate')
      await store.append('g', { type: 'g', data: 2 })
      await before.stop()
      await store.append('g', { type: 'g', data: 3 })
      const after = await start([definition])
      expect(await after.triggers!.list()).toMatchObject([{ id: 'gate', enabled: false, fired: 1 }])
      await after.triggers!.enable('gate')
      await store.append('g', { type: 'g', data: 4 })
      await idle('gate')
      expect((await fired('gate')).map(({ data }) => data.fired)).toEqual([1, 2])
      const history = await store.read('nq:trigger:gate')
      expect(history.map(({ type }) => type)).toEqual(['trigger.fired', 'trigger.disabled', 'trigger.enabled', 'trigger.fired'])
    })

    test('what came while it was disabled does not fire when it is handled later', async () => {
      const { store, start, fired, idle } = await parts()
      const { opened, open: release } = gate()
      const { triggers } = await start([{ id: 'late', on: { event: 'l' }, start: 'third', input: async ({ data }) => {
        if (data === 1) await opened
        return data
      } }])
      await store.append('l', { type: 'l', data: 1 })
      await triggers!.disable('late')
      const { id } = await store.append('l', { type: 'l', data: 2 })
      await triggers!.enable('late')
      await store.append('l', { type: 'l', data: 3 })
      release()
      await idle('late')
      const causes = (await fired('late')).map(({ data }) => data.cause)
      expect(causes).toContain(`l@${(await store.read('l')).at(-1)!.id}`)
      expect(causes).not.toContain(`l@${id}`)
    })

    test('an input that throws is tried again, then parked, and stops no other event and no other trigger', async () => {
      const { store, start, fired } = await parts()
      let attempts = 0
      const input = ({ data }: { data: any }): any => {
        if (data !== 'bad') return data
        attempts += 1
        throw new Error('cannot read it')
      }
      const { triggers } = await start([
        { id: 'picky', on: { event: 'p' }, start: 'third', input },
        { id: 'other', on: { event: 'p' }, start: 'third' },
      ])
      await store.append('p:1', { type: 'p', data: 'bad' })
      await store.append('p:2', { type: 'p', data: 'good' })
      await until('the others have fired', async () => (await fired('other')).length === 2 && (await fired('picky')).length === 1)
      const [parked] = await until('it is parked', async () => atLeast(1, await triggers!.parked('picky')), 30_000)
      expect(parked).toMatchObject({ subject: 'p:1', attempts: 5, reason: 'cannot read it' })
      expect(attempts).toBe(5)
      expect((await triggers!.list())[0]).toMatchObject({ id: 'picky', parked: 1, fired: 1 })
    })

    test('a thousand events and a thousand calls at once: one run for each', async () => {
      const { store, start, fired, runs } = await parts()
      const { triggers } = await start([{ id: 'many', on: { event: 'm' }, start: 'third' }])
      const calls = Array.from({ length: 1_000 }, (_, n) => triggers!.fire('many', n, { idempotencyKey: String(n % 500) }))
      const events = Array.from({ length: 1_000 }, (_, n) => store.append(`m:${n % 50}`, { type: 'm', data: n }))
      const results = await Promise.all(calls)
      await Promise.all(events)
      expect(results.filter(({ created }) => created).length).toBe(500)
      await until('all have fired', async () => (await fired('many')).length >= 1_500, 90_000)
      const history = await fired('many')
      expect(new Set(history.map(({ data }) => data.cause)).size).toBe(1_500)
      expect(history.map(({ data }) => data.fired)).toEqual(Array.from({ length: 1_500 }, (_, n) => n + 1))
      await until('all are in the index', async () => (await runs('third')).length === 1_500, 90_000)
    }, 200_000)

    test('a chain of flows that start each other ends at 32 links, with one event', async () => {
      const { store, start, fired, runs, idle } = await parts()
      await start([{ id: 'loop', on: { event: 'flow.completed', flow: 'third' }, start: 'third' }])
      await (await startFlow(third, null)).result()
      const stops = () => store.read('nq:trigger:loop', { types: ['trigger.depth'] })
      await until('it was stopped', async () => (await stops()).length > 0, 30_000)
      await idle('loop')
      expect((await stops()).map(({ data }) => data)).toMatchObject([{ depth: 33, limit: 32 }])
      expect(await fired('loop')).toHaveLength(32)
      await until('all are in the index', async () => (await runs('third')).length >= 33)
      expect(await runs('third')).toHaveLength(33)
    })

    test('debounced causes of one key start one run, which has all of them', async () => {
      const { store, start, fired } = await parts()
      await start([{
        id: 'batch', on: { event: 'b' }, start: 'second', debounce: { key: ({ data }) => data.key, wait: 250 },
        input: ({ events, data }) => ({ key: data.key, all: events!.map(event => event.data.n) }),
      }])
      const stored = []
      for (let n = 0; n < 6; n++) stored.push(await store.append(`b:${n}`, { type: 'b', data: { key: n % 2 ? 'odd' : 'even', n } }))
      await until('both have run', () => seen.length === 2)
      expect(seen.sort((a, b) => a.key < b.key ? -1 : 1)).toEqual([{ key: 'even', all: [0, 2, 4] }, { key: 'odd', all: [1, 3, 5] }])
      const history = await until('both are recorded', async () => atLeast(2, await fired('batch')))
      expect(history.map(({ data }) => data)).toMatchObject([
        { cause: `b:0@${stored[0]!.id}`, key: 'even', events: 3 }, { cause: `b:1@${stored[1]!.id}`, key: 'odd', events: 3 },
      ])
    })

    test('a window survives a restart, and fires once', async () => {
      const { store, start, fired, idle } = await parts()
      const definition: TriggerDefinition = {
        id: 'kept', on: { event: 'k' }, start: 'second', debounce: { wait: 600 }, input: ({ events }) => events!.map(({ data }) => data),
      }
      const before = await start([definition])
      await store.append('k', { type: 'k', data: 1 })
      await store.append('k', { type: 'k', data: 2 })
      await idle('kept')
      expect(before.triggers!.stats().waiting).toBe(2)
      await before.stop()
      expect(await fired('kept')).toEqual([])
      await start([definition])
      await store.append('k', { type: 'k', data: 3 })
      await until('it has fired', () => seen.length > 0)
      await idle('kept')
      expect(seen.flat()).toEqual([1, 2, 3])
    })

    test('a stop waits for the window that fires', async () => {
      const { store, start, fired } = await parts()
      const { opened, open: release } = gate()
      let calls = 0
      const registry = await start([{ id: 'slow', on: { event: 's' }, start: 'second', debounce: { wait: 20 }, input: async () => {
        calls += 1
        await opened
        return calls
      } }])
      await store.append('s', { type: 's' })
      await until('it fires', () => calls === 1)
      let stopped = false
      const stop = Promise.resolve(registry.stop()).then(() => stopped = true)
      for (let n = 0; n < 20; n++) await store.read('s')
      expect(stopped).toBe(false)
      release()
      await stop
      expect((await fired('slow')).map(({ data }) => data.events)).toEqual([1])
    })

    test('enable and disable resolve when the history has them, and only changes are in it', async () => {
      const { store, start } = await parts()
      const { triggers } = await start([{ id: 'gate', on: { manual: true }, start: 'third' }])
      const types = async () => (await store.read('nq:trigger:gate')).map(({ type }) => type)
      await triggers!.enable('gate')
      expect(await types()).toEqual([])
      await triggers!.disable('gate')
      expect(await types()).toEqual(['trigger.disabled'])
      await triggers!.disable('gate')
      await triggers!.enable('gate')
      expect(await types()).toEqual(['trigger.disabled', 'trigger.enabled'])
    })

    test('what another instance fired is in the list', async () => {
      const { store, start, fired } = await parts()
      const definition: TriggerDefinition = { id: 'both', on: { manual: true }, start: 'third' }
      const [one, other] = [await start([definition]), await start([definition], [third])]
      expect(await other.triggers!.list()).toMatchObject([{ fired: 0 }])
      for (const count of [1, 2]) {
        await one.triggers!.fire('both')
        expect(await other.triggers!.list()).toMatchObject([{ fired: count, lastFiredAt: (await fired('both')).at(-1)!.ts }])
      }
      expect(await store.read('nq:trigger:both')).toHaveLength(2)
    })

    test('a window whose run was started before a crash ends where the run says, and what came later is in the next one', async () => {
      const { store, start, fired, idle } = await parts()
      const definition: TriggerDefinition = {
        id: 'cut', on: { event: 'k' }, start: ['second', 'third'], debounce: { wait: 500 }, input: ({ events }) => events!.map(({ data }) => data),
      }
      const before = await start([definition])
      for (const n of [1, 2, 3]) await store.append('k', { type: 'k', data: n })
      await idle('cut')
      await before.stop()
      // As a process leaves it that is killed between the start of the first run and everything else.
      const [one, two, three] = (await store.feed.read({ subjects: 'k' })).map(({ position, event }) => ({ position, cause: `k@${event.id}` }))
      const runId = runIdOf('cut', 'second', one!.cause)
      const trigger = { id: 'cut', cause: one!.cause, kind: 'event', depth: 1, after: null, through: two!.position }
      await store.append(`nq:flow:${runId}`, { type: 'flow.start', runId, flowName: 'second', trigger, data: { input: [1, 2] } })
      await start([definition])
      const history = await until('both have fired', async () => atLeast(2, await fired('cut')), 30_000)
      expect(history.map(({ data }) => [data.cause, data.events, data.through])).toEqual([[one!.cause, 2, two!.position], [three!.cause, 1, three!.position]])
      const starts = await Promise.all(history.flatMap(({ data }) => data.runIds).map(id => store.read(`nq:flow:${id}`, { types: ['flow.start'] })))
      expect(starts.map(log => log.map(({ data }) => data.input))).toEqual([[[1, 2]], [[1, 2]], [[3]], [[3]]])
    })

    test('a window whose input throws is given up, and recorded', async () => {
      const { store, start, fired } = await parts()
      await start([{ id: 'bad', on: { event: 'k' }, start: 'second', debounce: { wait: 20 }, input: () => { throw new Error('no input') } }])
      const { id } = await store.append('k', { type: 'k' })
      const [failed] = await until('it was given up', async () => atLeast(1, await store.read('nq:trigger:bad', { types: ['trigger.failed'] })), 30_000)
      expect(failed!.data).toMatchObject({ causes: [`k@${id}`], error: 'no input' })
      expect(await fired('bad')).toEqual([])
    })

    test('maxWait ends a window that never rests', async () => {
      const { store, start } = await parts()
      await start([{ id: 'busy', on: { event: 'k' }, start: 'second', debounce: { wait: 400, maxWait: 500 }, input: ({ events }) => events!.length }])
      await until('it has fired while events go on', async () => {
        await store.append('k', { type: 'k' })
        return seen.length > 1
      })
    })

    test('a schedule fires once for each due time, with two registries on it', async () => {
      const { start, fired } = await parts()
      const definition: TriggerDefinition = { id: 'tick', on: { schedule: '* * * * * *', timezone: 'UTC' }, start: 'second', input: ({ at, data }) => [at, data.dueAt] }
      const { triggers } = await start([definition])
      await start([definition], [{ ...first, id: 'unused' }, second])
      const history = await until('it has fired', async () => atLeast(3, await fired('tick')), 30_000)
      expect(new Set(history.map(({ data }) => data.cause)).size).toBe(history.length)
      expect(history.every(({ data }) => data.cause.endsWith('.000Z'))).toBe(true)
      const [listed] = await triggers!.list()
      expect(listed!.nextRunAt! % 1000).toBe(0)
      await until('they have run', () => seen.length >= 3)
      expect(seen.every(([at, dueAt]) => at === dueAt && at % 1000 === 0)).toBe(true)
    })
  })
}
