import { createAdapters, createWiringRegistry, shutdownAdapters, useQueueAdapter } from 'nvent-native'
import type { FlowDefinition, QueueAdapter } from 'nvent-native'
import { expect } from 'vitest'
import { Inbox, until } from '../support/until'

export const ORDER: FlowDefinition = {
  id: 'order',
  entry: { step: 'check', queue: 'steps', emits: ['order.checked'] },
  steps: {
    pay: { subscribes: ['order.checked'], emits: ['order.paid'], queue: 'steps' },
    pack: { subscribes: ['order.checked'], emits: ['order.packed'], queue: 'steps' },
    ship: { subscribes: ['order.paid', 'order.packed'], queue: 'steps' },
  },
}
const EMITS: Record<string, string | undefined> = { check: 'order.checked', pay: 'order.paid', pack: 'order.packed' }

/** Runs a flow of four steps, two of them side by side, on a queue that `createAdapters` is handed, and shuts all down. */
export async function runsAFlow(own: QueueAdapter): Promise<void> {
  const { store, queue } = await createAdapters({ store: { adapter: 'memory' }, stream: { adapter: 'memory' }, queue: own })
  expect(queue).toBe(own)
  expect(useQueueAdapter()).toBe(own)
  const ran = new Inbox<[string, any]>()
  for (const stepName of ['check', ...Object.keys(ORDER.steps)]) {
    queue.registerWorker('steps', stepName, async (job) => {
      const { flowId: runId, flowName, input } = job.data
      ran.take([stepName, input])
      const fields = { runId, flowName, stepName }
      await store.append(`nq:flow:${runId}`, { type: 'step.started', ...fields })
      if (EMITS[stepName]) await store.append(`nq:flow:${runId}`, { type: 'emit', ...fields, data: { name: EMITS[stepName], payload: stepName } })
      await store.append(`nq:flow:${runId}`, { type: 'step.completed', ...fields })
      return stepName
    }, { concurrency: 4 })
  }
  queue.startProcessingQueue('steps')
  const registry = createWiringRegistry({ flow: { flows: [ORDER] } })
  await registry.start()

  await store.append('nq:flow:run-1', { type: 'flow.start', runId: 'run-1', flowName: 'order' })
  await queue.enqueue('steps', { name: 'check', data: { flowId: 'run-1', flowName: 'order', input: {} }, opts: { jobId: 'run-1__check' } })
  const status = async (): Promise<string> => (await store.index.get('nq:flows:order', 'run-1'))?.metadata.status
  await until('the run to complete', async () => await status() === 'completed')
  expect(ran.items.map(([step]) => step).sort()).toEqual(['check', 'pack', 'pay', 'ship'])
  expect(ran.items.find(([step]) => step === 'ship')![1]).toEqual({ 'order.paid': 'pay', 'order.packed': 'pack' })
  expect(await queue.getJob('steps', 'run-1__ship')).toMatchObject({ name: 'ship' })
  await registry.stop()
  await shutdownAdapters()
}
