import { startFlow } from 'nvent-native/native'
import type { Order } from '#shared/order'

/** Starts `count` orders. */
export default defineEventHandler(async (event) => {
  const { count = 1, card } = await readBody<{ count?: number, card?: Order['card'] }>(event) ?? {}
  if (!Number.isInteger(count) || count < 1 || count > 1000) {
    throw createError({ statusCode: 400, statusMessage: 'count must be a whole number from 1 to 1000' })
  }
  const runs = await Promise.all(Array.from({ length: count }, () => startFlow(order, { card })))
  return runs.map(({ runId }) => runId)
})
