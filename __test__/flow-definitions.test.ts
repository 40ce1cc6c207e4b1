import { expect, test } from 'vitest'
import { defineFlow, startFlow } from 'nvent-native'

const run = (): void => {}
const refused = (steps: any, message: RegExp): void => {
  expect(() => defineFlow('f', steps)).toThrow(expect.objectContaining({ code: 'NVENT_INVALID', message: expect.stringMatching(message) }))
}

test('a flow has one entry', () => {
  refused({}, /no entry/)
  refused({ a: { subscribes: ['step:a'], run } }, /no entry/)
  refused({ a: { run }, b: { run } }, /2 entries \(a, b\)/)
  refused({ a: { run }, b: { subscribes: [], run } }, /2 entries/)
})

test('a subscription needs a step that emits it', () => {
  refused({ a: { run }, b: { subscribes: ['x'], run } }, /"b" subscribes to "x", which no step has/)
  refused({ a: { emits: ['x'], run }, b: { subscribes: ['x', 'step:nosuch'], run } }, /there is no such step/)
  defineFlow('f', { a: { emits: ['x'], run }, b: { subscribes: ['a.x', 'step:a'], run } })
})

test('steps that only wait for each other are refused', () => {
  refused({ a: { run }, b: { subscribes: ['c'], emits: ['b'], run }, c: { subscribes: ['b'], emits: ['c'], run } }, /b, c can never run/)
  refused({ a: { emits: ['x'], run }, b: { subscribes: ['x', 'step:b'], run } }, /b can never run/)
  defineFlow('f', { a: { emits: ['b'], run }, b: { subscribes: ['b'], emits: ['b'], run } })
})

test('options of steps are checked', () => {
  refused({ a: {} }, /steps\.a\.run/)
  refused({ a: { run, backoff: { type: 'fixed', dely: 1 } } }, /steps\.a\.backoff\.dely: unknown option; did you mean "delay"/)
  refused({ a: { run, backoff: { type: 'linear', delay: 1 } } }, /steps\.a\.backoff\.type/)
  refused({ a: { run, queue: '' } }, /steps\.a\.queue: expected a non-empty string/)
  refused({ a: { run, subscribe: ['x'] } }, /steps\.a\.subscribe: unknown option; did you mean "subscribes"/)
  refused({ a: { run, attempts: 0 } }, /steps\.a\.attempts/)
  refused({ a: { run, timeout: Infinity } }, /steps\.a\.timeout/)
  refused({ a: { run, emits: [''] } }, /steps\.a\.emits\[0\]/)
  refused({ '': { run } }, /a step needs a name/)
  expect(() => defineFlow('', { a: { run } })).toThrow(expect.objectContaining({ code: 'NVENT_INVALID' }))
})

test('each step has a queue of its own unless it names one', () => {
  const flow = defineFlow('f', { a: { emits: ['x'], run }, b: { subscribes: ['x'], queue: 'shared', run } })
  expect(flow).toMatchObject({ id: 'f', entry: { step: 'a', queue: 'f.a', emits: ['x'] }, steps: { b: { queue: 'shared', subscribes: ['x'] } } })
})

test('a flow that no registry has is named', async () => {
  await expect(startFlow('nosuch', {})).rejects.toMatchObject({ code: 'NVENT_NOT_FOUND', message: expect.stringContaining('"nosuch"') })
})
