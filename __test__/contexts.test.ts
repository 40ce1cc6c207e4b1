import { expect, it } from 'vitest'
import { run } from './support/process'

it('a context that loaded the package, and closed what it opened, can be collected, and so can what its wirings used; one with a subscription is kept', async () => {
  const { code, stdout, stderr } = await run('loads-in-contexts.mjs')
  expect(stderr).toBe('')
  expect({ code, ...JSON.parse(stdout) }).toEqual({ code: 0, alive: 0, received: 'still open' })
})
