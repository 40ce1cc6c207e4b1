import { setTimeout as pause } from 'node:timers/promises'
import { defineFlow, type StepContext, type StepOptions } from 'nvent-native/native'
import { FLOW, type Order } from '#shared/order'

export const INDEX = `nq:flows:${FLOW}`
export const subjectOf = (runId: string) => `nq:flow:${runId}`

/** Charging and reserving run side by side; shipping waits for both. */
export const order = defineFlow<Order>(FLOW, {
  validate: step(250, { emits: ['order.valid'] }),
  charge: step(700, { subscribes: ['order.valid'], emits: ['order.paid'] }, async ({ card }, { runId, attempt, signal }) => {
    if (card === 'slow') await pause(60_000, undefined, { signal })
    if (card === 'declined' && attempt <= 3) throw new Error('The card was declined')
    if (attempt === 1 && luck(runId, 'card') < 0.12) throw new Error('The bank did not answer')
  }),
  reserve: step(450, { subscribes: ['order.valid'], emits: ['stock.reserved'] }),
  ship: step(550, { subscribes: ['order.paid', 'stock.reserved'], emits: ['order.shipped'] }),
  notify: step(200, { subscribes: ['order.shipped'] }),
})

/** A step that takes about `ms`, plus or minus half, does its work and emits. */
function step(ms: number, options: Omit<StepOptions, 'run'>, work?: (order: Order, step: StepContext) => Promise<void>): StepOptions {
  return {
    queue: 'orders',
    concurrency: 64,
    attempts: 3,
    backoff: { type: 'exponential', delay: 400 },
    ...options,
    async run(input, context) {
      const order: Order = options.subscribes ? Object.assign({}, ...Object.values(input)) : input
      await pause(ms * (0.5 + luck(context.runId, context.step)), undefined, { signal: context.signal })
      await work?.(order, context)
      for (const name of options.emits ?? []) await context.emit(name, { ...order, sentAt: preciseNow() })
    },
  }
}

/** Returns the time since the epoch in milliseconds, with a fraction. */
export const preciseNow = () => performance.timeOrigin + performance.now()

/** Returns a number from 0 to 1 that depends only on the run, so that a repeated step behaves the same. */
function luck(runId: string, salt: string): number {
  let hash = 2166136261
  for (const char of runId + salt) hash = Math.imul(hash ^ char.charCodeAt(0), 16777619)
  return (hash >>> 8) / 2 ** 24
}
