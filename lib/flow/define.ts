import { fields, object, options, text } from '../check'
import { invalid } from '../errors'
import { stepOptions } from '../options/wiring.js'
import type { Flow, FlowDefinition, StepOptions } from '../types'

/** Options of a step that go to its jobs. */
const JOB_OPTIONS = ['attempts', 'backoff', 'timeout'] as const

/**
 * Defines a flow whose steps are functions. The step without `subscribes` is the entry.
 *
 * Throws NVENT_INVALID where there is no entry or more than one, where a step subscribes to something that no step emits,
 * and where steps only wait for each other.
 */
export function defineFlow<Input = any>(id: string, steps: Record<string, StepOptions>): Flow<Input> {
  if (text('id', id) === '') throw invalid('id: expected a non-empty string')
  const names = fields('steps', object('steps', steps)).map(([name]) => name)
  for (const name of names) checkStep(name, steps[name])
  const at = `flow ${JSON.stringify(id)}`
  const entries = names.filter(name => !steps[name]!.subscribes?.length)
  if (entries.length === 0) throw invalid(`${at} has no entry: exactly one step must have no \`subscribes\``)
  if (entries.length > 1) {
    throw invalid(`${at} has ${entries.length} entries (${entries.join(', ')}): give all steps but one something to subscribe to`)
  }
  checkSubscriptions(at, names, steps)
  const entry = entries[0]!
  checkReachable(at, entry, names, steps)
  // A queue for each step, so that its concurrency is its own.
  const queueOf = (name: string): string => steps[name]!.queue ?? `${id}.${name}`
  const emitsOf = (name: string): string[] => [...steps[name]!.emits ?? []]
  const others = names.filter(name => name !== entry)
  return {
    id,
    entry: { step: entry, queue: queueOf(entry), emits: emitsOf(entry) },
    steps: Object.fromEntries(others.map(name => [name, {
      subscribes: [...steps[name]!.subscribes!], emits: emitsOf(name), queue: queueOf(name),
    }])),
    handlers: { ...steps },
  }
}

/** Checks that no two steps share a queue and a name: a worker would take the jobs of both. */
export function checkQueues(flows: FlowDefinition[]): void {
  const owners = new Map<string, string>()
  for (const flow of flows.filter(isFlow)) {
    for (const name of Object.keys(flow.handlers)) {
      const queue = queueOf(flow, name)
      const slot = JSON.stringify([queue, name])
      const other = owners.get(slot)
      if (other !== undefined) throw invalid(`flows: the steps ${JSON.stringify(name)} of ${JSON.stringify(other)} and ${JSON.stringify(flow.id)} share the queue ${JSON.stringify(queue)}: give one of them another name or queue`)
      owners.set(slot, flow.id)
    }
  }
}

function checkStep(name: string, step: unknown): void {
  const at = `steps.${name}`
  if (name === '') throw invalid('steps: a step needs a name')
  options(at, object(at, step), stepOptions)
}

/** Returns the steps that emit what a subscription names. */
function sourcesOf(subscription: string, names: string[], steps: Record<string, StepOptions>): string[] {
  if (subscription.startsWith('step:')) return names.filter(name => name === subscription.slice('step:'.length))
  return names.filter(name => steps[name]!.emits?.some(emit => emit === subscription || `${name}.${emit}` === subscription))
}

function checkSubscriptions(at: string, names: string[], steps: Record<string, StepOptions>): void {
  for (const name of names) {
    for (const subscription of steps[name]!.subscribes ?? []) {
      if (sourcesOf(subscription, names, steps).length > 0) continue
      throw invalid(subscription.startsWith('step:')
        ? `${at}: step ${JSON.stringify(name)} subscribes to ${JSON.stringify(subscription)}, and there is no such step (steps: ${names.join(', ')})`
        : `${at}: step ${JSON.stringify(name)} subscribes to ${JSON.stringify(subscription)}, which no step has in its \`emits\``)
    }
  }
}

/** Throws where steps can never run because they only wait for each other. */
function checkReachable(at: string, entry: string, names: string[], steps: Record<string, StepOptions>): void {
  const reachable = new Set([entry])
  for (let before = 0; before < reachable.size;) {
    before = reachable.size
    for (const name of names) {
      const isMet = (subscription: string): boolean => sourcesOf(subscription, names, steps).some(source => reachable.has(source))
      if (steps[name]!.subscribes?.every(isMet)) reachable.add(name)
    }
  }
  const stuck = names.filter(name => !reachable.has(name))
  if (stuck.length > 0) throw invalid(`${at}: ${stuck.join(', ')} can never run, as they wait for each other: a cycle needs a way in and out`)
}

/** Returns whether a definition came from {@link defineFlow}. */
export const isFlow = (flow: FlowDefinition): flow is Flow => typeof (flow as Partial<Flow> | null)?.handlers === 'object'

/** Returns what native flow wiring is given: no functions, and the options of each step's jobs. */
export function nativeDefinition(flow: FlowDefinition): unknown {
  if (!isFlow(flow)) return flow
  const { handlers, entry, steps, ...rest } = flow
  const withJobs = (name: string, step: object): object => ({
    ...step,
    jobOptions: Object.fromEntries(JOB_OPTIONS.flatMap(option => handlers[name]?.[option] === undefined ? [] : [[option, handlers[name]![option]]])),
  })
  return {
    ...rest,
    entry: entry && withJobs(entry.step, entry),
    steps: Object.fromEntries(Object.entries(steps).map(([name, step]) => [name, withJobs(name, step)])),
    startsEntry: true,
  }
}

/** Returns the options of a step's job, its id included. */
export function jobOptionsOf(flow: FlowDefinition, step: string, jobId: string): Record<string, unknown> {
  const options: Record<string, unknown> = { jobId }
  if (!isFlow(flow)) return options
  for (const option of JOB_OPTIONS) {
    if (flow.handlers[step]?.[option] !== undefined) options[option] = flow.handlers[step]![option]
  }
  return options
}

/** Returns the queue of a step. */
export const queueOf = (flow: FlowDefinition, step: string): string =>
  (flow.entry?.step === step ? flow.entry.queue : flow.steps[step]?.queue) ?? step
