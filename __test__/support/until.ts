import { once } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'
import { expect } from 'vitest'

/** Polls until the check returns something truthy, and returns that. */
export async function until<T>(what: string, check: () => T | Promise<T>, withinMs = 10_000): Promise<NonNullable<T>> {
  const deadline = Date.now() + withinMs
  for (;;) {
    const value = await check()
    if (value) return value
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await pause(5)
  }
}

/** Remembers what a handler was called with, and lets one wait for it. */
export class Inbox<T = any> {
  readonly items: T[] = []
  readonly take = (item: T): void => void this.items.push(item)

  /** The items, once there are so many. */
  async atLeast(count: number): Promise<T[]> {
    await until(`${count} deliveries (there are ${this.items.length})`, () => this.items.length >= count)
    return this.items
  }
}

/** A promise and what settles it. */
export function gate(): { opened: Promise<void>, open: () => void } {
  let open!: () => void
  const opened = new Promise<void>(resolve => open = resolve)
  return { opened, open }
}

/** Asserts that a call rejects with a code, and a message that says where. */
export async function rejects(call: Promise<unknown> | (() => unknown), code: string, message: RegExp = /./): Promise<void> {
  const error: any = await Promise.resolve().then(() => typeof call === 'function' ? call() : call).then(
    value => expect.fail(`resolved with ${JSON.stringify(value)?.slice(0, 200)} instead of rejecting with ${code}`),
    thrown => thrown,
  )
  expect(error, String(error?.stack)).toBeInstanceOf(Error)
  expect(error.code, error.message).toBe(code)
  expect(error.message).toMatch(message)
}

/** The next warning of the process that the package gives. */
export async function nextWarning(): Promise<Error & { code?: string, detail?: string }> {
  for (;;) {
    const [warning] = await once(process, 'warning')
    if (String(warning.code).startsWith('NVENT_')) return warning
  }
}
