import { beginCall, noteCall } from '../activity'
import type { TrackedCall } from '../activity'
import { fromNative, NventError, rethrown } from '../errors'
import type { Reply } from './binding'
import { bridge, keepAlive, onWake, takeLeft } from './bridge'
import { flushBuses } from './deliveries'

interface PendingOperation {
  resolve: (value: any) => void
  reject: (error: unknown) => void
  tracked: TrackedCall | undefined
  /** It returns nothing. */
  isVoid: boolean
}

const pending = new Map<number, PendingOperation>()

// The native side never keeps the process alive. While an operation is under way, which ends, this does.
let allAnswered: (() => void) | undefined

onWake('completed', () => {
  const batch = bridge.takeCompleted()
  if (batch === null) return
  flushBuses()
  let rows: any[]
  try {
    rows = JSON.parse(batch)
  }
  catch {
    rows = parseEach(batch)
  }
  for (let i = 0; i < rows.length; i += 3) {
    const operation = pending.get(rows[i])
    if (!operation) continue
    pending.delete(rows[i])
    operation.tracked?.end()
    if (rows[i + 1] === 1) operation.resolve(operation.isVoid ? undefined : rows[i + 2])
    else operation.reject(rows[i + 2] instanceof Error ? rows[i + 2] : fromNative(rows[i + 2]))
  }
  if (pending.size === 0) {
    allAnswered?.()
    allAnswered = undefined
  }
})

/** Parses the rows of a batch one by one, where it is no JSON as a whole: a row that is not fails its own call only. */
function parseEach(batch: string): any[] {
  const texts = bridge.lastCompleted()
  const parsed: any[] = []
  for (let i = 0; i < texts.length; i += 3) {
    const id = Number(texts[i])
    try {
      parsed.push(id, Number(texts[i + 1]), JSON.parse(texts[i + 2]!))
    }
    catch (error) {
      parsed.push(id, 0, noJson(error))
    }
  }
  // A batch of one row.
  if (texts.length === 0) parsed.push(Number(/^\[(\d+),/.exec(batch)?.[1]), 0, noJson(undefined))
  return parsed
}

const noJson = (cause: unknown): NventError =>
  new NventError('NVENT_CORRUPT', 'what is stored there is no JSON: it was written by another program, or damaged', { cause })

// Calls of one turn wake the thread that carries them out once, when all are made.
let turnHasCalls = false
function endTurn(): void {
  turnHasCalls = false
  bridge.flush()
}

/** Runs a native method. Returns its value, or a promise of it. */
export function call<T>(method: () => Reply, isStoreCall = false): T | Promise<T> {
  return valueOf(callSync(method), isStoreCall)
}

/** A reply that begins so has left something in the bridge. */
const LEFT = 0x20

/** Runs a native method that may deliver something here, which is taken as soon as the running code has ended. Returns as {@link call} does. */
export function callAndTake<T>(method: () => Reply, isStoreCall = false): T | Promise<T> {
  const reply = callSync(method)
  if (typeof reply === 'string' && reply.charCodeAt(0) === LEFT) takeLeft()
  return valueOf(reply, isStoreCall)
}

function valueOf<T>(reply: Reply, isStoreCall: boolean, isVoid = false): T | Promise<T> {
  if (typeof reply !== 'number') noteCall()
  if (typeof reply === 'string') {
    try {
      return JSON.parse(reply)
    }
    catch (error) {
      throw noJson(error)
    }
  }
  if (reply === null) return (isVoid ? undefined : null) as T
  if (!turnHasCalls) {
    turnHasCalls = true
    process.nextTick(endTurn)
  }
  return new Promise<T>((resolve, reject) => {
    allAnswered ??= keepAlive()
    pending.set(reply, { resolve, reject, tracked: beginCall(isStoreCall), isVoid })
  })
}

/** Runs a method of a store, which the end of a job waits for. Does what an async function does, with fewer promises. */
export function storeCall<T>(method: () => Reply): Promise<T> {
  return promised(() => call<T>(method, true))
}

/** Runs a method of a store that returns nothing, as {@link storeCall} does. */
export function storeWrite(method: () => Reply): Promise<void> {
  return promised(() => valueOf<void>(callSync(method), true, true))
}

/** Returns a promise of what `work` returns. It rejects with what `work` throws. */
export function promised<T>(work: () => T | Promise<T>): Promise<T> {
  try {
    const value = work()
    return value instanceof Promise ? value : Promise.resolve(value)
  }
  catch (error) {
    return Promise.reject(error)
  }
}

/** Runs a native method that never takes longer. */
export function callSync<T>(method: () => T): T {
  try {
    return method()
  }
  catch (thrown) {
    throw rethrown(thrown)
  }
}

/** Returns how an adapter is. Never rejects: what keeps it from answering is the detail. */
export async function healthOf(native: { health(): Reply }): Promise<{ ok: boolean, detail?: string }> {
  try {
    return await call(() => native.health())
  }
  catch (error) {
    return { ok: false, detail: (error as Error).message }
  }
}
