import { describeError } from '../errors'
import { bridge, hold, onWake, release } from './bridge'

/** Calls of methods of JavaScript objects, such as an application's own stream, by native code. */

const targets = new Map<number, object>()
let lastTarget = 0

onWake('calls', () => {
  const batch = bridge.takeCalls()
  if (batch === null) return
  for (const [id, target, method, args, returns] of JSON.parse(batch)) void invokeTarget(id, target, method, args, returns)
})

/** Lets native code call methods of a JavaScript object; returns its number, for `releaseTarget`. */
export function registerTarget(target: object): number {
  lastTarget += 1
  targets.set(lastTarget, target)
  hold()
  return lastTarget
}

/** Ends what `registerTarget` began. */
export function releaseTarget(target: number): void {
  if (targets.delete(target)) release()
}

/** Calls a method. Its value crosses only where it `returns` one that is read. */
async function invokeTarget(id: number, target: number, method: string, args: unknown[], returns: boolean): Promise<void> {
  let ok = true
  let text = 'null'
  try {
    const receiver = targets.get(target) as Record<string, any> | undefined
    if (!receiver) throw new Error('the object is gone: its wiring has stopped')
    const value: unknown = await receiver[method](...args)
    if (returns) text = serialised(method, value)
  }
  catch (error) {
    ok = false
    text = describeError(error)
  }
  bridge.completeCall(id, ok, text)
}

function serialised(method: string, value: unknown): string {
  try {
    return JSON.stringify(value) ?? 'null'
  }
  catch (cause) {
    throw new TypeError(`the result of ${method}() cannot be written as JSON`, { cause })
  }
}
