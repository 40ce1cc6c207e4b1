/** The flow of an order: validate, then charge and reserve in parallel, then ship when both have completed. */
import { getEventBus } from 'nvent-native'

export const orders = {
  id: 'order',
  entry: { step: 'validate', queue: 'orders', emits: ['order.valid'] },
  steps: {
    charge: { queue: 'orders', subscribes: ['order.valid'], emits: ['payment.charged'] },
    reserve: { queue: 'orders', subscribes: ['order.valid'], emits: ['stock.reserved'] },
    ship: { queue: 'orders', subscribes: ['payment.charged', 'stock.reserved'] },
  },
}

const work = {
  validate: input => ({ emit: 'order.valid', payload: { total: input.order.items * 20 } }),
  charge: input => ({ emit: 'payment.charged', payload: { paid: input['order.valid'].total } }),
  reserve: () => ({ emit: 'stock.reserved', payload: { shelf: 'B4' } }),
  ship: input => ({ payload: { from: input['stock.reserved'].shelf, paid: input['payment.charged'].paid } }),
}

/** Registers the steps as workers. A step publishes its events on the bus; the flow wiring persists them. */
export function registerSteps(queue, { bus = getEventBus(), ms = 20 } = {}) {
  for (const [name, run] of Object.entries(work)) {
    queue.registerWorker('orders', name, async (job) => {
      const { flowId: runId, flowName, input } = job.data
      const attempt = job.attemptsMade + 1
      const publish = (type, data) =>
        bus.publish({ type, runId, flowName, stepName: name, stepId: `${runId}__${name}__attempt-${attempt}`, attempt, data })
      publish('step.started', {})
      await new Promise(resolve => setTimeout(resolve, ms))
      const { emit, payload } = run(input)
      if (emit) publish('emit', { name: emit, payload })
      publish('step.completed', { result: payload })
      return payload
    }, { concurrency: 4 })
  }
  queue.startProcessingQueue('orders')
}

/** Starts a run: publishes `flow.start` and enqueues the entry step. */
export async function startOrder(queue, runId, order, bus = getEventBus()) {
  bus.publish({ type: 'flow.start', runId, flowName: orders.id, data: { order } })
  await queue.enqueue('orders', {
    name: 'validate',
    data: { flowId: runId, flowName: orders.id, input: { order } },
    opts: { jobId: `${runId}__validate` },
  })
}
