/** The calls that a job's handler has caused, and when they have all been answered. */
import { setImmediate as turn } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { beginCall, runTracked } from '../lib/activity'
import { Inbox } from './support/until'

it('a handler whose calls follow from one another is waited for to the last, with one listener on the signal of the deadline', async () => {
  const [answers, warnings] = [new Inbox<number>(), new Inbox<Error>()]
  process.on('warning', warnings.take)
  const { answered } = await runTracked(() => {
    void (async () => {
      for (let n = 0; n < 20; n++) {
        const call = beginCall(false)!
        await turn()
        await turn()
        answers.take(n)
        call.end()
      }
    })()
  })
  expect(await answered!(60_000)).toBe(true)
  expect(answers.items).toHaveLength(20)
  await turn()
  process.off('warning', warnings.take)
  expect(warnings.items).toEqual([])
})

it('a call that is not answered is waited for until the deadline', async () => {
  const { answered } = await runTracked(() => void beginCall(false))
  expect(await answered!(1)).toBe(false)
})

it('a handler waits for what it has left to be done after the calls of another handler of its run, and not of another run', async () => {
  const stored: string[] = []
  let chain = Promise.resolve()
  // As nvent does: the events of a run are stored one after the other.
  const publish = (event: string): void => void (chain = chain.then(async () => {
    const call = beginCall(false)!
    for (let n = 0; n < 3; n++) await turn()
    stored.push(event)
    call.end()
  }))
  const [first, second] = await Promise.all([
    runTracked(() => ['a', 'b', 'c'].forEach(publish), 'run'),
    runTracked(() => {
      // What it has called itself is answered long before its event is stored.
      beginCall(false)!.end()
      publish('d')
    }, 'run'),
  ])
  const other = await runTracked(() => beginCall(false)!.end(), 'another')
  expect(await other.answered!(60_000)).toBe(true)
  expect(stored).not.toContain('d')
  expect(await second.answered!(60_000)).toBe(true)
  expect(stored).toEqual(['a', 'b', 'c', 'd'])
  expect(await first.answered!(60_000)).toBe(true)
})
