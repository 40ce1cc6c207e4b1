import type { BusEvent, NventEvents } from './events'

/**
 * In-process. Handlers run synchronously, in order of registration, on the JavaScript thread; one that throws does not stop the others.
 * All of them get the same object: a handler that changes it changes it for the others.
 */
export interface EventBus {
  /** Calls every handler of the type, of `'*'` and of the event's run. An event without id and ts is ingress: flow wiring persists it. */
  publish<const Type extends string>(event: BusEvent<Type>): void
  /** Registers a handler for a type; `'*'` is every type. The returned function ends it. */
  onType<const Type extends string>(type: Type, handler: (event: Type extends keyof NventEvents ? BusEvent<Type> : any) => unknown): () => void
  /** Registers a handler for the events of one run. The returned function ends it. */
  subscribeRunId(runId: string, handler: (event: any) => unknown): () => void
}

/** Numbers of a bus of this package, since it was created. */
export interface BusStats {
  /** Events published with `publish`, by this JavaScript environment. */
  published: number
  /** Handlers that are registered. */
  handlers: number
  /** Handlers that threw or rejected. The first is reported as a warning, further ones only here. */
  handlerErrors: number
}

/** A bus of this package. */
export interface NativeEventBus extends EventBus {
  /** Returns its numbers. */
  stats(): BusStats
}
