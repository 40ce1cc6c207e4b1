import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { runFile } from './support/process'

const EXAMPLES: Record<string, string[]> = {
  'store': ['another writer came first: NVENT_CONFLICT', `paid orders: [ '1, 10 views' ]`, 'session of ada', 'starts: 1'],
  'stream-groups': ['each subscriber: 6; the group together: 6', 'a late subscriber: 6'],
  'queue': ['sent to ada@example.org at attempt 2', 'the schedule fired', 'jobs completed, 0 failed'],
  'custom-channel': ['billing:ada: billing.changed, order.paid', 'billing:ada: billing.changed, order.refunded', 'routed: 2'],
  'custom-wiring': ['orders today: 3', 'after the stop: 3'],
  'bullmq-queue': ['hello, BullMQ', 'the run has completed'],
  'two-instances': ['the second process has cached 10', 'and has now 12'],
}

describe('the examples', () => {
  let cwd: string
  beforeEach(async () => {
    cwd = await mkdtemp(join(tmpdir(), 'nvent-example-'))
  })
  afterEach(() => rm(cwd, { recursive: true, force: true }))

  it.each(Object.entries(EXAMPLES))('%s prints what it is about, and exits by itself', async (name, lines) => {
    const { code, stdout, stderr } = await runFile(`../examples/${name}.mjs`, [], { cwd })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    for (const line of lines) expect(stdout).toContain(`${line}\n`)
  }, 30_000)
})
