import { loadAddon } from './loader'

/** The addon. Its classes are declared in src/node. */

/** JSON text, null for nothing, or the id of an operation that completes later. */
export type Reply = string | number | null

interface NativeBridge {
  flush(): void
  takeLeft(): boolean
  clearNotified(): void
  takeCompleted(): string | null
  lastCompleted(): string[]
  takeDeliveries(only?: number | null): string | null
  pause(subscription: number): void
  resume(subscription: number, ok: boolean): void
  remove(subscription: number, handlerAtWork: boolean): void
  takeCalls(): string | null
  takeWarnings(): string | null
  metrics(): string
  completeCall(call: number, ok: boolean, text: string): void
}

export interface NativeStore {
  setInstance(instance: string): void
  open(): Reply
  close(): Reply
  health(): Reply
  stats(): string
  append(subject: string, event: string, expected: string | null | undefined, idOnly: boolean): Reply
  read(subject: string, query?: string | null): Reply
  subscribe(subject: string): Reply
  unsubscribe(id: number): Reply
  deleteSubject(subject: string): Reply
  kvGet(key: string): Reply
  kvSet(key: string, value: string, ttl?: number | null): Reply
  kvDelete(key: string): Reply
  kvClear(pattern: string): Reply
  kvIncrement(key: string, by: number): Reply
  indexAdd(key: string, id: string, score: number, metadata?: string | null): Reply
  indexGet(key: string, id: string): Reply
  indexCount(key: string, query: string | undefined): Reply
  subjects(pattern: string, cursor: string | undefined): Reply
  indexRead(key: string, query?: string | null): Reply
  indexUpdate(key: string, id: string, patch: string, expectedVersion?: number | null): Reply
  indexIncrement(key: string, id: string, field: string, by: number): Reply
  indexDelete(key: string, id: string): Reply
  docSave(collection: string, id: string, doc: string): Reply
  docGet(collection: string, id: string): Reply
  docList(collection: string, query?: string | null): Reply
  docDelete(collection: string, id: string): Reply
  feedRead(after: string | null, limit: number, subjects: string[], types: string[]): Reply
  feedHead(): Reply
  consumers(): Reply
  parked(consumer: string, after: string | null, limit: number): Reply
  replay(consumer: string, positions: string[] | undefined): Reply
  deleteConsumer(name: string): Reply
  exportPage(part: string, after: number, limit: number): Reply
  importLines(lines: string): Reply
  importEvent(subject: string, event: string): Reply
  importEntry(key: string, id: string, score: number, metadata: string): Reply
  indexKeys(pattern: string, cursor: string | undefined): Reply
  kvPage(cursor: string | undefined): Reply
  backup(path: string): Reply
  verify(): Reply
}

export interface NativeStream {
  open(): Reply
  close(): Reply
  health(): Reply
  stats(): string
  publish(topic: string, message: string): Reply
  subscribe(topic: string, options: string): Reply
  unsubscribe(id: number): Reply
  topics(): string
  subscriptionCount(topic: string): number
  parked(topic: string, group: string): Reply
  replayParked(topic: string, group: string): Reply
}

export interface NativeQueue {
  open(): Reply
  enqueue(queue: string, job: string): Reply
  schedule(queue: string, job: string, options: string): Reply
  job(queue: string, id: string): Reply
  jobs(queue: string, states: string[], offset: number, limit?: number | null): Reply
  counts(queue: string): Reply
  scheduled(queue: string): Reply
  removeScheduled(id: string): Reply
  removeJob(queue: string, id: string): Reply
  isPaused(queue: string): Reply
  pause(queue: string): Reply
  resume(queue: string): Reply
  on(queue: string, event: string): Reply
  off(id: number): Reply
  registerWorker(queue: string, jobName: string, options: string): Reply
  start(queue: string): Reply
  complete(token: number, result: string): Reply
  fail(token: number, reason: string): Reply
  progress(token: number, progress: string): Reply
  drain(timeoutMs: number): Reply
  settled(token: number): Reply
  startAttempt(token: number): boolean
  retryJob(queue: string, id: string): Reply
  holdWorkers(isHeld: boolean): void
  health(): Reply
  backup(path: string): Reply
  verify(): Reply
  cancellations(): Reply
  close(limitMs: number): Reply
}

export interface NativeBus {
  publish(event: string, subject?: string | null): void
  hasListeners(): boolean
  subscribe(): number
  unsubscribe(): void
}

export interface NativeWiring {
  start(): Reply
  stop(): Reply
  stats(): string
}

export interface NativeConsumer {
  start(): Reply
  stats(): string
  parked(after: string | null, limit: number): Reply
  replay(positions?: string[] | null): Reply
  stop(): Reply
}

export interface NativeCalendar {
  next(after: number): number | null
  last(after: number, until: number): number | null
}

export interface NativeHttp {
  post(request: string): Reply
}

interface Addon {
  Bridge: new (onWake: () => void) => NativeBridge
  NativeBus: new (bridge: NativeBridge) => NativeBus
  NativeStore: {
    sqliteVersion(): string
    memory(bridge: NativeBridge, bus: NativeBus | null): NativeStore
    file(bridge: NativeBridge, bus: NativeBus | null, options: string): NativeStore
    redis(bridge: NativeBridge, bus: NativeBus | null, options: string): NativeStore
  }
  NativeCalendar: new (pattern: string, tz: string | undefined, patternAt: string, tzAt: string) => NativeCalendar
  NativeConsumer: new (bridge: NativeBridge, store: NativeStore, name: string, target: number, options: string) => NativeConsumer
  NativeStream: {
    memory(bridge: NativeBridge, retain: boolean, maxEvents: number | null, maxAgeMs: number | null): NativeStream
    redis(bridge: NativeBridge, options: string): NativeStream
  }
  NativeQueueReader: new (dir: string) => {
    queues(): string
    jobs(queue: string, states: string[], offset: number, limit: number): string
    backup(path: string): void
    verify(): string[]
  }
  NativeQueue: {
    memory(bridge: NativeBridge, options: string): NativeQueue
    file(bridge: NativeBridge, options: string): NativeQueue
  }
  NativeHttp: (new (bridge: NativeBridge) => NativeHttp) & {
    /** Throws where a request to the URL, with these headers and secrets, could not be sent. */
    check(url: string | null, headers: string[][], secrets: string[]): void
    /** Whether a signature was made with one of the secrets. The age of `timestamp`, in seconds, is for the caller to check. */
    verify(secrets: string[], id: string, timestamp: number, body: Buffer, signature: string): boolean
  }
  NativeCoordinator: new (bridge: NativeBridge, bus: NativeBus, store: NativeStore | null, stream: NativeStream | null, target: number, options: string) => NativeWiring
  NativeFlowWiring: { checkFlows(flows: string): void, stateOf(flow: string | null, events: string): string } & (new (
    bridge: NativeBridge, bus: NativeBus, store: NativeStore | null, storeTarget: number,
    queue: NativeQueue | null, queueTarget: number, options: string,
  ) => NativeWiring & {
    setFlows(flows: string): void
    queues(): string
    claimEntry(flow: string, runId: string): Reply
    jobFailed(queue: string, jobId: string, name: string, reason?: string | null): void
  })
}

export const addon: Addon = loadAddon()
