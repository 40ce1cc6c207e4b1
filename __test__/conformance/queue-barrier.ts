import { createEventBus, FileStoreAdapter } from 'nvent-native'
import type { FileStore } from 'nvent-native'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { gate, Inbox } from '../support/until'
import type { QueueContext } from './queue'

/** A job is committed as ended only when the store calls that its handler caused have been answered. */
export function barrier(context: QueueContext): void {
  let dataDir: string
  let store: FileStore
  beforeEach(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-barrier-'))
    store = new FileStoreAdapter({ dataDir, bus: createEventBus() })
    await store.append('s', { type: 'opened' })
  })
  afterEach(async () => {
    await store.close()
    await rm(dataDir, { recursive: true })
  })

  // A write of this size is not answered within the turn in which the handler settles.
  const large = { type: 'written', data: 'x'.repeat(1_000_000) }
  const fails = [['succeeds', false], ['fails', true]] as const
  it.each(fails)('ends a job after the store calls that its handler did not await, where it %s', async (_what, failing) => {
    const { add, work, collect } = context
    const [ended, answered] = [collect(failing ? 'failed' : 'completed'), new Inbox()]
    work((job) => {
      for (let n = 0; n < 5; n++) void store.append('s', { ...large, stepName: job.id }).then(() => answered.take(ended.items.length))
      if (failing) throw new Error('no luck')
    })
    await add({ jobId: 'x' })
    await ended.atLeast(1)
    expect(answered.items).toEqual([0, 0, 0, 0, 0])
  })

  it('waits for calls that follow from one another after the handler has settled', async () => {
    const { queue, add, work, collect } = context
    const [completed, order] = [collect('completed'), new Inbox()]
    const chain = async (): Promise<void> => {
      for (let n = 0; n < 20; n++) await store.append('s', { type: 'chain', data: n })
      await queue.enqueue('next', { name: 'a', data: 1, opts: { jobId: 'follows' } })
      order.take(completed.items.length)
    }
    work(() => void chain())
    await add({ jobId: 'x' })
    await completed.atLeast(1)
    expect(order.items).toEqual([0])
    expect((await store.read('s', { types: ['chain'] })).length).toBe(20)
  })

  it('lets the next job start while an ended one waits for its store calls', async () => {
    const { add, work, collect } = context
    const [completed, begun, busy, go] = [collect('completed'), new Inbox(), new Inbox(), gate()]
    // Its stop is a call that is not answered before `go`.
    const consumer = await store.consume('c', async ({ id }) => busy.take(id) ?? go.opened, { from: 'beginning' })
    await busy.atLeast(1)
    work((job) => {
      begun.take(job.id)
      if (job.id === 'first') void consumer.stop()
    })
    await add({ jobId: 'first' }, { jobId: 'second' })
    await begun.atLeast(2)
    await completed.atLeast(1)
    expect(completed.items).toMatchObject([{ jobId: 'second' }])
    go.open()
    expect((await completed.atLeast(2))[1]).toMatchObject({ jobId: 'first' })
  })
}
