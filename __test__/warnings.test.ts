import { createEventBus, MemoryStoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { nextWarning, until } from './support/until'

it('what native code warns about arrives as a warning of the process, with its code, a few of a kind', async () => {
  const store = new MemoryStoreAdapter({ bus: createEventBus() })
  const warnings: any[] = []
  const onWarning = (warning: any): void => void (warning.code === 'NVENT_CONSUMER_PARKED' && warnings.push(warning))
  process.on('warning', onWarning)
  const consumer = await store.consume('c', () => { throw new Error('from the handler') }, { attempts: 1 })
  const first = nextWarning()
  for (let n = 0; n < 20; n++) await store.append(`s${n}`, { type: 'a' })
  expect((await first).name).toBe('NventWarning')
  await until('all are parked', () => consumer.stats().parked === 20)
  await until('warnings arrive', () => warnings.length >= 5)
  expect(warnings).toHaveLength(5)
  expect(warnings[0].message).toMatch(/"s0".* from the handler/)
  process.off('warning', onWarning)
  await store.close()
})
