/** Starts `count` orders. */
export default defineEventHandler(async (event) => {
  const { count = 1 } = await readBody<{ count?: number }>(event) ?? {}
  if (!Number.isInteger(count) || count < 1 || count > 1000) {
    throw createError({ statusCode: 400, statusMessage: 'count must be a whole number from 1 to 1000' })
  }
  return Promise.all(Array.from({ length: count }, startOrder))
})
