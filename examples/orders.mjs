/**
 * The flow of an order: validate, then charge and reserve in parallel, then ship when both have completed. An order that is
 * completed triggers a second flow, its receipt.
 */
import { defineFlow } from 'nvent-native'
import { setTimeout as work } from 'node:timers/promises'

export const orders = defineFlow('order', {
  validate: { emits: ['order.valid'], run: async ({ items }, { emit }) => {
    await work(20)
    await emit('order.valid', { total: items * 20 })
  } },
  charge: { subscribes: ['order.valid'], emits: ['payment.charged'], run: async (input, { emit }) => {
    await work(20)
    await emit('payment.charged', { paid: input['order.valid'].total })
  } },
  reserve: { subscribes: ['order.valid'], emits: ['stock.reserved'], run: async (_, { emit }) => {
    await work(20)
    await emit('stock.reserved', { shelf: 'B4' })
  } },
  ship: { subscribes: ['payment.charged', 'stock.reserved'], run: input => ({
    from: input['stock.reserved'].shelf, paid: input['payment.charged'].paid,
  }) },
})

export const receipts = defineFlow('receipt', {
  send: { run: async ({ order }) => {
    await work(20)
    return { sent: order }
  } },
})

/** One receipt for each order, whatever crashes: the id of its run follows from the order's last event. */
export const triggers = [
  { id: 'receipt', on: { event: 'flow.completed', flow: 'order' }, start: 'receipt', input: ({ event }) => ({ order: event.runId }) },
]
