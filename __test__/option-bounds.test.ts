/** Every number that an option takes: its bounds, which the documentation says, are written down once more here. */
import { expect, it } from 'vitest'
import { problemsOf } from '../lib/options/check'
import * as queue from '../lib/options/queue'
import { isOption, optionsOf, type AnySchema, type Option } from '../lib/options/schema'
import * as store from '../lib/options/store'
import * as stream from '../lib/options/stream'
import * as wiring from '../lib/options/wiring'

/** Returns the number that an option takes, in whichever alternative. */
const numberOf = (node: Option): Option | undefined => node.kind === 'number' ? node : node.rule.alternatives?.find(other => other.kind === 'number')

function numbersOf(schema: AnySchema, path: string): Array<[path: string, option: Option]> {
  return Object.entries(schema).flatMap(([name, node]) => {
    const own = isOption(node) ? numberOf(node) : undefined
    const inner = optionsOf(node)
    return [...own ? [[`${path}.${name}`, own] as [string, Option]] : [], ...inner ? numbersOf(inner, `${path}.${name}`) : []]
  })
}

const tables = Object.entries({ ...queue, ...store, ...stream, ...wiring })
  .filter(([, table]) => typeof table === 'object' && !isOption(table as any) && Object.values(table).every(node => isOption(node as any) || typeof node === 'object'))
const numbers = tables.flatMap(([name, table]) => numbersOf(table as AnySchema, name))

it('each has its bounds, and its default where that is decided in TypeScript', () => {
  const shown = (value: number): string => Math.abs(value) >= Number.MAX_SAFE_INTEGER ? 'any' : String(value)
  expect(numbers.map(([path, { rule }]) => `${path} ${rule.whole ? 'whole ' : ''}${shown(rule.min!)} to ${shown(rule.max!)}${rule.endless ? ' or Infinity' : ''}${rule.default === undefined ? '' : `, else ${rule.default}`}`).sort())
    .toMatchInlineSnapshot(`
      [
        "consumeOptions.attempts whole 1 to 1000000, else 5",
        "consumeOptions.backoff whole 0 to 86400000",
        "consumeOptions.backoff.delay whole 0 to 86400000",
        "consumeOptions.backoff.maxDelay whole 0 to 86400000",
        "consumeOptions.concurrency whole 1 to 10000, else 1",
        "deliveriesOptions.limit whole 0 to 10000, else 100",
        "feedReadOptions.limit whole 0 to any, else 1000",
        "fileQueueOptions.defaultJobOptions.attempts whole 1 to 4294967295 or Infinity",
        "fileQueueOptions.defaultJobOptions.backoff 0 to 316224000000",
        "fileQueueOptions.defaultJobOptions.backoff.delay 0 to 316224000000",
        "fileQueueOptions.defaultJobOptions.backoff.jitter 0 to 1",
        "fileQueueOptions.defaultJobOptions.delay 0 to 316224000000",
        "fileQueueOptions.defaultJobOptions.priority whole 0 to 4294967295",
        "fileQueueOptions.defaultJobOptions.removeOnComplete.age 0 to 316224000 or Infinity",
        "fileQueueOptions.defaultJobOptions.removeOnComplete.count whole 0 to 4294967295 or Infinity",
        "fileQueueOptions.defaultJobOptions.removeOnFail.age 0 to 316224000 or Infinity",
        "fileQueueOptions.defaultJobOptions.removeOnFail.count whole 0 to 4294967295 or Infinity",
        "fileQueueOptions.defaultJobOptions.timeout 0 to 316224000000 or Infinity",
        "fileStoreOptions.retention.maxAgeMs whole 1 to any",
        "fileStoreOptions.retention.maxEventsPerSubject whole 1 to any",
        "flowData.keepState 0 to any",
        "indexReadOptions.cursor.score any to any",
        "indexReadOptions.limit whole 0 to any",
        "indexReadOptions.offset whole 0 to any",
        "indexUpdateOptions.expectedVersion whole 0 to any",
        "jobOptions.attempts whole 1 to 4294967295 or Infinity",
        "jobOptions.backoff 0 to 316224000000",
        "jobOptions.backoff.delay 0 to 316224000000",
        "jobOptions.backoff.jitter 0 to 1",
        "jobOptions.delay 0 to 316224000000",
        "jobOptions.priority whole 0 to 4294967295",
        "jobOptions.removeOnComplete.age 0 to 316224000 or Infinity",
        "jobOptions.removeOnComplete.count whole 0 to 4294967295 or Infinity",
        "jobOptions.removeOnFail.age 0 to 316224000 or Infinity",
        "jobOptions.removeOnFail.count whole 0 to 4294967295 or Infinity",
        "jobOptions.timeout 0 to 316224000000 or Infinity",
        "jobQuery.limit whole 0 to any",
        "jobQuery.offset whole 0 to any, else 0",
        "listOptions.limit whole 0 to any",
        "listOptions.offset whole 0 to any",
        "memoryStreamOptions.retain.maxAgeMs whole 1 to any",
        "memoryStreamOptions.retain.maxEvents whole 1 to any",
        "messagesOptions.buffer whole 1 to 10000000",
        "parkedOptions.limit whole 0 to any, else 100",
        "queueOptions.defaultJobOptions.attempts whole 1 to 4294967295 or Infinity",
        "queueOptions.defaultJobOptions.backoff 0 to 316224000000",
        "queueOptions.defaultJobOptions.backoff.delay 0 to 316224000000",
        "queueOptions.defaultJobOptions.backoff.jitter 0 to 1",
        "queueOptions.defaultJobOptions.delay 0 to 316224000000",
        "queueOptions.defaultJobOptions.priority whole 0 to 4294967295",
        "queueOptions.defaultJobOptions.removeOnComplete.age 0 to 316224000 or Infinity",
        "queueOptions.defaultJobOptions.removeOnComplete.count whole 0 to 4294967295 or Infinity",
        "queueOptions.defaultJobOptions.removeOnFail.age 0 to 316224000 or Infinity",
        "queueOptions.defaultJobOptions.removeOnFail.count whole 0 to 4294967295 or Infinity",
        "queueOptions.defaultJobOptions.timeout 0 to 316224000000 or Infinity",
        "readOptions.from any to any",
        "readOptions.limit whole 0 to any",
        "readOptions.to any to any",
        "redisConnection.db whole 0 to 1000000",
        "redisConnection.port whole 1 to 65535",
        "redisStoreOptions.connection.db whole 0 to 1000000",
        "redisStoreOptions.connection.port whole 1 to 65535",
        "redisStoreOptions.streams.trim.maxLen whole 1 to 1000000000000000",
        "redisStreamOptions.connection.db whole 0 to 1000000",
        "redisStreamOptions.connection.port whole 1 to 65535",
        "redisStreamOptions.retain.maxLen whole 1 to 1000000000000000",
        "registryFlow.keepState 0 to any",
        "registryOptions.flow.keepState 0 to any",
        "resultOptions.timeout any to any",
        "retain.maxLen whole 1 to 1000000000000000",
        "retainConfig.maxLen whole 1 to 1000000000000000",
        "retention.maxAgeMs whole 1 to any",
        "retention.maxEventsPerSubject whole 1 to any",
        "stepOptions.attempts whole 1 to any",
        "stepOptions.backoff 0 to 316224000000",
        "stepOptions.backoff.delay 0 to 316224000000",
        "stepOptions.backoff.jitter 0 to 1",
        "stepOptions.concurrency whole 1 to any",
        "stepOptions.timeout whole 1 to any",
        "subscribeOptions.buffer whole 1 to 10000000",
        "triggerDefinition.debounce.maxWait 1 to 2592000000",
        "triggerDefinition.debounce.wait 1 to 2592000000",
        "trim.maxLen whole 1 to 1000000000000000",
        "webhookDefinition.attempts whole 1 to 100, else 8",
        "webhookDefinition.timeout whole 1 to 300000, else 15000",
      ]
    `)
})

it.each(numbers)('%s is taken at its bounds and refused beyond them', (_, option) => {
  const { min, max, whole, endless } = option.rule as { min: number, max: number, whole?: boolean, endless?: boolean }
  const problems = (value: unknown): string[] => problemsOf('', { n: value }, { n: option } as any).map(({ path, why }) => `${path}: ${why}`)
  for (const value of [min, max, ...endless ? [Infinity] : []]) expect(problems(value)).toEqual([])
  const beyond = [NaN, -Infinity, String(min), null, ...endless ? [] : [Infinity], ...whole && max > min ? [min + 0.5] : []]
  for (const bound of [min, max]) {
    if (Math.abs(bound) < Number.MAX_SAFE_INTEGER) beyond.push(bound === min ? bound - 1 : bound + 1)
  }
  for (const value of beyond) expect(problems(value)).toEqual([expect.stringMatching(/^n: expected .*, got /)])
})
