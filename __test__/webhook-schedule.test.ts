import { expect, it } from 'vitest'
import { delayAfter, retryAfterOf, sweepInterval } from '../lib/webhook/schedule'

const [SECOND, MINUTE, HOUR] = [1_000, 60_000, 3_600_000]

it('attempts are 5 s, 30 s, 2 min, 10 min, 1 h, 6 h and 24 h apart, and up to a tenth more', () => {
  const delays = [5 * SECOND, 30 * SECOND, 2 * MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR, 24 * HOUR]
  for (const [i, delay] of delays.entries()) {
    const drawn = Array.from({ length: 200 }, () => delayAfter(i + 1, 0))
    expect([Math.min(...drawn) >= delay, Math.max(...drawn) <= 1.1 * delay, new Set(drawn).size > 1]).toEqual([true, true, true])
  }
  expect(delayAfter(1, HOUR)).toBeGreaterThanOrEqual(HOUR)
  expect(delayAfter(5, SECOND)).toBeGreaterThanOrEqual(HOUR)
  expect(sweepInterval()).toBe(10 * MINUTE)
})

it.each<[number, string | null, number]>([
  [503, '2', 2 * SECOND], [429, '0', 0], [429, String(25 * 3_600), 24 * HOUR], [503, 'Thu, 01 Jan 1970 00:01:00 GMT', 30 * SECOND], [503, 'Thu, 01 Jan 1970 00:00:01 GMT', 0],
  [503, null, 0], [503, 'soon', 0], [503, '9'.repeat(16), 0], [500, '2', 0], [200, '2', 0],
])('a status %i with Retry-After %j asks for a wait of %i ms', (status, header, wait) => {
  expect(retryAfterOf(status, header, 30 * SECOND)).toBe(wait)
})
