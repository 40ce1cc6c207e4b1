import { describe, expect, test } from 'vitest'
import type { Flow, QueueAdapter, StepContext, StoreAdapter } from 'nvent-native'
import {
  cancelFlow, createEventBus, createWiringRegistry, defineFlow, deleteRun, MemoryStreamAdapter, retryRun, setAdapters, startFlow,
} from 'nvent-native'
import { gate, until } from '../support/until'

export interface FlowParts { store: StoreAdapter, queue: QueueAdapter }

/** Runs flows from `defineFlow` on a store and a queue. `open` is given the bus to announce on. */
export function flowSuite(name: string, open: (bus: ReturnType<typeof createEventBus>) => Promise<FlowParts>): void {
  describe(name, () => {
    const running = async (flows: Flow[], keepState?: number): Promise<FlowParts & AsyncDisposable> => {
      const bus = createEventBus()
      const { store, queue } = await open(bus)
      const stream = new MemoryStreamAdapter()
      setAdapters({ store, queue, stream })
      const wiring = createWiringRegistry({ bus, store, queue, stream, flow: { flows, keepState } })
      await wiring.start()
      return {
        store,
        queue,
        [Symbol.asyncDispose]: async () => {
          await queue.close()
          await wiring.stop()
          await stream.shutdown()
          await store.close()
        },
      }
    }
    const logOf = async (store: StoreAdapter, runId: string): Promise<string[]> =>
      (await store.read(`nq:flow:${runId}`)).map(({ type, stepName, data }) => [type, stepName, type === 'emit' ? data.name : undefined].filter(Boolean).join(' '))

    const order = defineFlow<{ items: number }>('order', {
      validate: { emits: ['order.valid'], run: async ({ items }, { emit }) => emit('order.valid', { total: items * 20 }) },
      charge: { subscribes: ['order.valid'], emits: ['charged'], run: async (input, { emit }) => emit('charged', { paid: input['order.valid'].total }) },
      reserve: { subscribes: ['order.valid'], emits: ['reserved'], run: async (_, { emit }) => emit('reserved', { shelf: 'B4' }) },
      ship: { subscribes: ['charged', 'reserved'], run: input => ({ paid: input['charged'].paid, from: input['reserved'].shelf }) },
    })

    test('a run goes through its steps and resolves with its end', async () => {
      await using env = await running([order])
      const run = await startFlow(order, { items: 2 })
      expect(run.created).toBe(true)
      expect(await run.result()).toEqual({ status: 'completed' })
      const events = await env.store.read(`nq:flow:${run.runId}`)
      expect(events.find(event => event.stepName === 'ship' && event.type === 'step.completed')!.data.result).toEqual({ paid: 40, from: 'B4' })
      expect(events[0]).toMatchObject({ type: 'flow.start', data: { input: { items: 2 } } })
      await until('the condition', async () => (await env.store.index.get('nq:flows:order', run.runId))?.metadata.status === 'completed')
    })

    test.each(['order[1]', 'order*', '\\?'])('a run %s, whose id would be a glob, resolves with its end', async (runId) => {
      const { opened, open } = gate()
      const held = defineFlow('held', { only: { run: () => opened } })
      await using env = await running([held])
      const run = await startFlow(held, {}, { runId })
      const result = run.result({ timeout: 30_000 })
      // It subscribes to the log, and looks at it, before these are answered.
      for (let n = 0; n < 3; n++) await logOf(env.store, runId)
      open()
      expect(await result).toEqual({ status: 'completed' })
    })

    test('a start under a known run id starts nothing, and its result is that of the run', async () => {
      await using env = await running([order])
      const first = await startFlow(order, { items: 1 }, { runId: 'known' })
      await first.result()
      const again = await startFlow('order', { items: 9 }, { runId: 'known' })
      expect(again.created).toBe(false)
      expect(await again.result()).toEqual({ status: 'completed' })
      const log = await logOf(env.store, 'known')
      expect(log.filter(line => line === 'flow.start')).toHaveLength(1)
      expect(log.filter(line => line === 'step.started validate')).toHaveLength(1)
    })

    test('a run whose start was stored and whose entry was never enqueued begins', async () => {
      await using env = await running([order])
      await env.store.append('nq:flow:half', { type: 'flow.start', runId: 'half', flowName: 'order', data: { input: { items: 3 } } })
      const again = await startFlow(order, { items: 0 }, { runId: 'half' })
      expect(again.created).toBe(false)
      expect(await again.result()).toEqual({ status: 'completed' })
      const events = await env.store.read('nq:flow:half', { types: ['step.completed'] })
      expect(events.at(-1)!.data.result.paid).toBe(60)
    })

    test('flow wiring enqueues the entry of a start that it finds in the log', async () => {
      await using env = await running([order])
      await env.store.append('nq:flow:found', { type: 'flow.start', runId: 'found', flowName: 'order', data: { input: { items: 3 } } })
      await until('the condition', async () => (await logOf(env.store, 'found')).includes('flow.completed'))
    })

    test('an attempt that throws is followed by another, and the last one fails the run', async () => {
      const seen: number[] = []
      const flaky = defineFlow('flaky', {
        once: { emits: ['done'], attempts: 3, backoff: 1, run: async (_, { attempt, emit }) => {
          seen.push(attempt)
          if (attempt < 2) throw new Error('not yet')
          await emit('done')
        } },
        never: { subscribes: ['done'], attempts: 2, backoff: 1, run: () => {
          throw new Error('no luck')
        } },
      })
      await using env = await running([flaky])
      const run = await startFlow(flaky, {})
      expect(await run.result()).toEqual({ status: 'failed', error: 'no luck' })
      expect(seen).toEqual([1, 2])
      const log = await logOf(env.store, run.runId)
      expect(log).toEqual([
        'flow.start', 'step.started once', 'step.failed once', 'step.retry once', 'step.started once', 'emit once done', 'step.completed once',
        'step.started never', 'step.failed never', 'step.retry never', 'step.started never', 'step.failed never', 'flow.failed',
      ])
      const events = await env.store.read(`nq:flow:${run.runId}`, { types: ['step.started', 'step.failed'] })
      expect(events.map(({ stepId, attempt, data }) => [stepId, attempt, data.willRetry])).toEqual(['once', 'once', 'once', 'never', 'never', 'never', 'never'].map((step, i) => {
        const attempt = [1, 1, 2, 1, 1, 2, 2][i]
        return [`${run.runId}__${step}__attempt-${attempt}`, attempt, [undefined, true, undefined, undefined, true, undefined, false][i]]
      }))
    })

    test('a failed run goes on at the step that failed', async () => {
      let works = false
      const attempts: number[] = []
      const flow = defineFlow('repaired', {
        first: { emits: ['go'], run: (_, { emit }) => emit('go', { n: 1 }) },
        second: { subscribes: ['go'], run: (input, { attempt }) => {
          attempts.push(attempt)
          if (!works) throw new Error('broken')
          return input['go'].n
        } },
      })
      await using env = await running([flow])
      const run = await startFlow(flow, {})
      expect((await run.result()).status).toBe('failed')
      await until('the condition', async () => (await env.store.index.get('nq:flows:repaired', run.runId))?.metadata.status === 'failed')
      works = true
      expect(await retryRun(flow, run.runId)).toBe(true)
      await until('the condition', async () => (await logOf(env.store, run.runId)).at(-1) === 'flow.completed')
      expect(attempts).toEqual([1, 2])
      expect((await logOf(env.store, run.runId)).filter(line => line === 'step.started first')).toHaveLength(1)
      await until('the condition', async () => (await env.store.index.get('nq:flows:repaired', run.runId))?.metadata.status === 'completed')
      const { metadata } = (await env.store.index.get('nq:flows:repaired', run.runId))!
      expect(metadata.error).toBeUndefined()
      expect(await retryRun(flow, run.runId)).toBe(false)
    })

    test('a failed entry can be retried as well', async () => {
      let works = false
      const flow = defineFlow('entry-fails', { only: { run: (input) => {
        if (!works) throw new Error('broken')
        return input.n
      } } })
      await using env = await running([flow])
      const run = await startFlow(flow, { n: 7 })
      expect((await run.result()).status).toBe('failed')
      works = true
      expect(await retryRun('entry-fails', run.runId)).toBe(true)
      await until('the condition', async () => (await logOf(env.store, run.runId)).at(-1) === 'flow.completed')
      expect((await env.store.read(`nq:flow:${run.runId}`, { types: ['step.completed'] }))[0]!.data.result).toBe(7)
    })

    test('cancelling aborts the step at work and begins no other', async () => {
      let began!: () => void
      const atWork = new Promise<void>(resolve => began = resolve)
      const flow = defineFlow('canceled', {
        waits: { emits: ['next'], run: async (_, { signal, emit }) => {
          began()
          await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()))
          await emit('next')
        } },
        after: { subscribes: ['next'], run: () => 'never' },
      })
      await using env = await running([flow])
      const run = await startFlow(flow, {})
      await atWork
      expect(await cancelFlow(flow, run.runId, 'changed my mind')).toBe(true)
      expect(await run.result()).toEqual({ status: 'canceled', error: 'changed my mind' })
      await until('the condition', async () => (await logOf(env.store, run.runId)).includes('step.completed waits'))
      expect(await env.queue.getJob('canceled.after', `${run.runId}__after`)).toBeNull()
      expect(await cancelFlow(flow, run.runId)).toBe(false)
      expect(await cancelFlow(flow, 'nobody')).toBe(false)
    })

    /** A flow whose entry is followed by two steps that work until they are aborted, then wait for `release`. */
    const pair = (release = Promise.resolve()) => {
      const [begun, aborted]: [string[], string[]] = [[], []]
      const run = async (_: unknown, { step, signal, state }: StepContext): Promise<void> => {
        begun.push(step)
        await new Promise(resolve => signal.addEventListener('abort', resolve))
        aborted.push(step)
        await release
        await state.set(step, 'late')
      }
      const flow = defineFlow('pair', { entry: { emits: ['go'], run: (_, { emit }) => emit('go') }, left: { subscribes: ['go'], run }, right: { subscribes: ['go'], run } })
      return { flow, begun, aborted }
    }

    test('cancelling aborts every step at work, also where another process cancels', async () => {
      const { flow, begun, aborted } = pair()
      await using env = await running([flow])
      await startFlow(flow, {}, { runId: 'here' })
      await until('both are at work', () => begun.length === 2)
      await cancelFlow(flow, 'here')
      await until('both are aborted', () => aborted.length === 2)
      await startFlow(flow, {}, { runId: 'elsewhere' })
      await until('both are at work', () => begun.length === 4)
      await env.store.append('nq:flow:elsewhere', { type: 'flow.cancel', runId: 'elsewhere', flowName: 'pair', data: {} })
      await until('both are aborted', () => aborted.length === 4)
      expect(aborted.toSorted()).toEqual(['left', 'left', 'right', 'right'])
    })

    test('a deletion waits for the steps at work, and what they store until they end is deleted', async () => {
      const { opened, open: release } = gate()
      const { flow, begun, aborted } = pair(opened)
      await using env = await running([flow])
      await startFlow(flow, {}, { runId: 'busy' })
      await until('both are at work', () => begun.length === 2)
      let isDeleted = false
      const deleting = deleteRun(flow, 'busy').then(deleted => isDeleted = deleted)
      await until('both are aborted', () => aborted.length === 2)
      await until('the run has ended', async () => (await env.store.index.get('nq:flows:pair', 'busy'))?.metadata.status !== 'running')
      for (let n = 0; n < 20; n++) await env.store.read('nq:flow:busy')
      expect(isDeleted).toBe(false)
      release()
      expect(await deleting).toBe(true)
      expect(await env.store.read('nq:flow:busy')).toEqual([])
      expect([await env.store.kv.get('nq:flow:busy:left'), await env.store.kv.get('nq:flow:busy:right')]).toEqual([null, null])
    })

    test('cancelling removes a job that waits for its next attempt', async () => {
      const flow = defineFlow('later', { only: { attempts: 2, backoff: 600_000, run: () => {
        throw new Error('not yet')
      } } })
      await using env = await running([flow])
      await startFlow(flow, {}, { runId: 'waits' })
      await until('it waits', async () => (await env.queue.getJob('later.only', 'waits__only'))?.state === 'delayed')
      expect(await cancelFlow(flow, 'waits')).toBe(true)
      expect(await env.queue.getJob('later.only', 'waits__only')).toBeNull()
    })

    test('a job that comes again does nothing where its step is done or its run is cancelled', async () => {
      const calls: string[] = []
      const flow = defineFlow('again', { only: { run: (_, { runId }) => void calls.push(runId) } })
      await using env = await running([flow])
      await (await startFlow(flow, {}, { runId: 'done' })).result()
      await env.store.append('nq:flow:stopped', { type: 'flow.start', runId: 'stopped', flowName: 'again', data: {} })
      await env.store.append('nq:flow:stopped', { type: 'flow.cancel', runId: 'stopped', flowName: 'again', data: {} })
      for (const runId of ['done', 'stopped']) {
        await env.queue.enqueue('again.only', { name: 'only', data: { flowId: runId, flowName: 'again', input: {} }, opts: { jobId: `${runId}-again` } })
        await until('the job has ended', async () => (await env.queue.getJob('again.only', `${runId}-again`))?.state === 'completed')
      }
      expect(calls).toEqual(['done'])
      expect(await logOf(env.store, 'done')).toEqual(['flow.start', 'step.started only', 'step.completed only', 'flow.completed'])
    })

    test('a job of a run without a log does nothing, except the entry step, which may come before the start', async () => {
      const calls: string[] = []
      const note = (_: unknown, { step }: StepContext): void => void calls.push(step)
      const flow = defineFlow('gone', { first: { run: note }, second: { subscribes: ['step:first'], run: note } })
      await using env = await running([flow])
      const runs = async (step: string): Promise<void> => {
        await env.queue.enqueue(`gone.${step}`, { name: step, data: { flowId: 'r', flowName: 'gone', input: {} }, opts: { jobId: `r-${step}` } })
        await until('the job has ended', async () => (await env.queue.getJob(`gone.${step}`, `r-${step}`))?.state === 'completed')
      }
      await runs('second')
      expect([calls, await logOf(env.store, 'r')]).toEqual([[], []])
      await runs('first')
      expect(calls[0]).toBe('first')
    })

    test('a step that goes on when its run was deleted elsewhere stores nothing more', async () => {
      const { opened, open: release } = gate()
      const { flow, begun, aborted } = pair(opened)
      await using env = await running([flow])
      await startFlow(flow, {}, { runId: 'deleted' })
      await until('both are at work', () => begun.length === 2)
      await cancelFlow(flow, 'deleted')
      await until('both are aborted', () => aborted.length === 2)
      await until('the run has ended', async () => (await env.store.index.get('nq:flows:pair', 'deleted'))?.metadata.status === 'canceled')
      await env.store.stream.delete('nq:flow:deleted')
      await env.store.index.delete('nq:flows:pair', 'deleted')
      release()
      for (const step of ['left', 'right']) await until('its job has ended', async () => (await env.queue.getJob(`pair.${step}`, `deleted__${step}`))?.state === 'failed')
      expect(await logOf(env.store, 'deleted')).toEqual([])
    })

    test('a log without a start is no run: it can be started', async () => {
      await using env = await running([order])
      await env.store.append('nq:flow:noted', { type: 'log', runId: 'noted', flowName: 'order', data: { message: 'before' } })
      const run = await startFlow(order, { items: 1 }, { runId: 'noted' })
      expect(run.created).toBe(true)
      expect(await run.result({ timeout: 30_000 })).toEqual({ status: 'completed' })
      expect((await logOf(env.store, 'noted')).slice(0, 2)).toEqual(['log', 'flow.start'])
      expect((await startFlow(order, { items: 1 }, { runId: 'noted' })).created).toBe(false)
      // What retention has left of a run is one.
      await env.store.append('nq:flow:trimmed', { type: 'flow.completed', runId: 'trimmed', flowName: 'order', data: {} })
      await env.store.index.add('nq:flows:order', 'trimmed', 1, { status: 'completed' })
      expect((await startFlow(order, { items: 1 }, { runId: 'trimmed' })).created).toBe(false)
      expect(await logOf(env.store, 'trimmed')).toEqual(['flow.completed'])
    })

    test('a deleted run leaves nothing and its id can be used again', async () => {
      const flow = defineFlow('deleted', { only: { run: async (_, { state }) => state.set('k', 1) } })
      await using env = await running([flow])
      for (let round = 0; round < 3; round++) {
        const run = await startFlow(flow, { round }, { runId: 'same' })
        expect(run.created).toBe(true)
        expect(await run.result()).toEqual({ status: 'completed' })
        expect(await env.store.kv.get('nq:flow:same:k')).toBe(1)
        expect(await deleteRun(flow, 'same')).toBe(true)
        expect(await env.store.read('nq:flow:same')).toEqual([])
        expect(await env.store.index.get('nq:flows:deleted', 'same')).toBeNull()
        expect(await env.store.kv.get('nq:flow:same:k')).toBeNull()
        expect(await env.queue.getJob('deleted.only', 'same__only')).toBeNull()
      }
      expect(await deleteRun(flow, 'same')).toBe(false)
    })

    test('state is shared by the steps of a run and removed after its end', async () => {
      const seen: unknown[] = []
      const flow = defineFlow('state', {
        sets: { emits: ['set'], run: async (_, { state, emit }) => {
          await state.set('a.b', { n: 1 })
          await state.set('gone', 1)
          await state.delete('gone')
          await emit('set')
        } },
        gets: { subscribes: ['set'], run: async (_, { state }) => seen.push(await state.get('a.b'), await state.get('gone')) },
      })
      await using env = await running([flow], 0)
      const run = await startFlow(flow, {})
      await run.result()
      expect(seen).toEqual([{ n: 1 }, null])
      await until('the condition', async () => await env.store.kv.get(`nq:flow:${run.runId}:a.b`) === null)
      await until('the condition', async () => (await env.store.index.read('nq:flow-state')).length === 0)
    })

    test('state is kept for seven days after the end of its run, and while there is no end', async () => {
      const flow = defineFlow('old', { only: { run: () => {} } })
      const { store, queue } = await open(createEventBus())
      const day = 24 * 60 * 60 * 1000
      const now = Date.now()
      const runs: Record<string, object | undefined> = {
        week: { status: 'completed', completedAt: now - 7 * day - 60_000 }, days: { status: 'failed', completedAt: now - 7 * day + 600_000 },
        running: { status: 'running', startedAt: now - 30 * day }, gone: undefined, new: undefined,
      }
      for (const [runId, entry] of Object.entries(runs)) {
        if (entry) await store.index.add('nq:flows:old', runId, 1, entry)
        await store.kv.set(`nq:flow:${runId}:k`, runId)
        await store.index.add('nq:flow-state', JSON.stringify([runId, 'k']), runId === 'new' ? now : now - 8 * day, { runId, key: 'k', flowName: 'old' })
      }
      const wiring = createWiringRegistry({ bus: createEventBus(), store, queue, stream: new MemoryStreamAdapter(), flow: { flows: [flow] } })
      await wiring.start()
      await until('what is old is removed', async () => (await store.index.read('nq:flow-state')).length === 3)
      expect(await Promise.all(Object.keys(runs).map(runId => store.kv.get(`nq:flow:${runId}:k`)))).toEqual([null, 'days', 'running', null, 'new'])
      await queue.close()
      await wiring.stop()
      await store.close()
    })

    test('log stores an event', async () => {
      const flow = defineFlow('logs', { only: { run: (_: unknown, step: StepContext) => step.log('warn', 'low', { left: 2 }) } })
      await using env = await running([flow])
      const run = await startFlow(flow, {})
      await run.result()
      const [event] = await env.store.read(`nq:flow:${run.runId}`, { types: ['log'] })
      expect(event).toMatchObject({ stepName: 'only', data: { level: 'warn', message: 'low', data: { left: 2 } } })
    })

    test('a step that throws what has no text fails with words', async () => {
      const flow = defineFlow('exotic', { only: { run: () => {
        throw Object.create(null)
      } } })
      await using _env = await running([flow])
      const run = await startFlow(flow, {})
      expect(await run.result()).toMatchObject({ status: 'failed', error: expect.stringContaining('cannot be converted') })
    })

    test('result rejects at its timeout and its signal', async () => {
      const flow = defineFlow('slow', { only: { run: (_, { signal }) => new Promise(resolve => signal.addEventListener('abort', resolve)) } })
      await using _env = await running([flow])
      const run = await startFlow(flow, {})
      await expect(run.result({ timeout: 10 })).rejects.toMatchObject({ code: 'NVENT_UNAVAILABLE', retryable: true })
      await expect(run.result({ signal: AbortSignal.abort(new Error('stop')) })).rejects.toThrow('stop')
      const controller = new AbortController()
      const waiting = run.result({ signal: controller.signal })
      controller.abort(new Error('later'))
      await expect(waiting).rejects.toThrow('later')
      await cancelFlow(flow, run.runId)
    })
  })
}
