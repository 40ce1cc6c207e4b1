import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { expect } from 'vitest'

/** Polls `check` until it returns a truthy value, and returns that value. */
export async function until<T>(what: string, check: () => T | Promise<T>, withinMs = 10_000): Promise<NonNullable<T>> {
  const deadline = Date.now() + withinMs
  for (;;) {
    const value = await check()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await pause(5)
  }
}

/** Collects what a handler is called with. */
export class Inbox<T = any> {
  readonly items: T[] = []
  readonly take = (item: T): void => void this.items.push(item)

  /** Resolves with the items once there are at least `count`. */
  async atLeast(count: number): Promise<T[]> {
    await until(`${count} deliveries (there are ${this.items.length})`, () => this.items.length >= count)
    return this.items
  }
}

/** Returns a promise and the function that resolves it. */
export function gate(): { opened: Promise<void>, open: () => void } {
  let open!: () => void
  const opened = new Promise<void>(resolve => open = resolve)
  return { opened, open }
}

/** Asserts that a call rejects with a code, and with a message that names the argument. */
export async function rejects(call: Promise<unknown> | (() => unknown), code: string, message: RegExp = /./): Promise<void> {
  const error: any = await Promise.resolve().then(() => typeof call === 'function' ? call() : call).then(
    value => expect.fail(`resolved with ${JSON.stringify(value)?.slice(0, 200)} instead of rejecting with ${code}`),
    thrown => thrown,
  )
  expect(error, String(error?.stack)).toBeInstanceOf(Error)
  expect(error.code, error.message).toBe(code)
  expect(error.message).toMatch(message)
}

/** Resolves with the next process warning whose code begins with `NVENT_`. */
export async function nextWarning(): Promise<Error & { code?: string, detail?: string }> {
  for (;;) {
    const [warning] = await once(process, 'warning')
    if (String(warning.code).startsWith('NVENT_')) return warning
  }
}
