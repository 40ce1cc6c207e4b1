import { json, options, text } from '../check'
import { currentAdapter } from '../factory'
import { addon, callSync } from '../native'
import { runStateOptions } from '../options/wiring.js'
import type { FlowDefinition, ListedFlow, RunSnapshot, RunStateOptions } from '../types'
import { nativeDefinition, queueOf } from './define'
import { runtimes } from './runtime'

/** Returns the flows of the registries that run in this process. */
export function listFlows(): ListedFlow[] {
  const listed = new Map<string, ListedFlow>()
  for (const runtime of runtimes) {
    for (const flow of runtime.list()) {
      if (!listed.has(flow.id)) {
        listed.set(flow.id, { id: flow.id, runIndex: runtime.runIndex(flow.id), runSubject: runtime.subject(flow.id, '{runId}'), steps: stepsOf(flow) })
      }
    }
  }
  return [...listed.values()]
}

/** Returns the steps of a definition, the entry first. */
function stepsOf(flow: FlowDefinition): ListedFlow['steps'] {
  const { entry, steps } = flow
  return [
    ...entry ? [{ name: entry.step, queue: queueOf(flow, entry.step), subscribes: [], emits: entry.emits ?? [] }] : [],
    ...Object.entries(steps).filter(([name]) => name !== entry?.step).map(([name, { subscribes = [], emits = [] }]) => ({
      name, queue: queueOf(flow, name), subscribes, emits,
    })),
  ]
}

/** Resolves with the state of a run after the events of its log up to `until`: what flow wiring decided by at that moment. */
export async function runState(flow: string, runId: string, opts?: RunStateOptions): Promise<RunSnapshot> {
  text('flow', flow)
  text('runId', runId)
  const { store = currentAdapter('store'), subject, until } = options('options', opts, runStateOptions)
  const runtime = [...runtimes].find(other => other.flow(flow))
  const events = await store.stream.read(subject ?? runtime?.subject(flow, runId) ?? `nq:flow:${runId}`)
  const end = until === undefined ? events.length : events.findIndex(event => event.id === until) + 1
  const definition = runtime?.flow(flow)
  return JSON.parse(callSync(() => addon.NativeFlowWiring.stateOf(
    definition === undefined ? null : json('flow', nativeDefinition(definition)), json('events', events.slice(0, end)),
  )))
}
