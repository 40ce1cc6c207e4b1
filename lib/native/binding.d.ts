// Generated from src/node by `npm run types`.

/** JSON text, null for nothing, or the id of an operation that completes later. Text with a space before it: something was delivered. */
export type Reply = string | number | null

/** One per JavaScript environment. */
export declare class Bridge {
  /**
   * Creates a bridge. `on_wake` is called without arguments, on the JavaScript thread, when there is something to take. It
   * is held weakly.
   */
  constructor(onWake: () => void)
  /** Wakes the threads that carry out the calls of this turn. To be called when all are made. */
  flush(): void
  /** Allows the next notification: what arrives from now on notifies again. To be called first on waking. */
  clearNotified(): void
  /** Takes operations that have completed: `[op_id, ok, value or error, …]`, or null. */
  takeCompleted(): string | null
  /**
   * Returns the rows of the last batch of `takeCompleted` one by one, for a batch that is no JSON as a whole:
   * `op_id, ok, value or error` as texts, in turn.
   */
  lastCompleted(): Array<string>
  /** Takes a batch of deliveries, or null. With a subscription's id only what is waiting for that one. */
  takeDeliveries(only?: number | undefined | null): string | null
  /** Holds a subscription's events back until `resume`: its handler has returned a promise. */
  pause(subscription: number): void
  /** Goes on with a subscription: its handler has been registered, or is done with what it was given, successfully or not. */
  resume(subscription: number, ok: boolean): void
  /** Removes a subscription. Where its handler is still at work, `resume` acknowledges what it has. */
  remove(subscription: number, handlerAtWork: boolean): void
  /** Takes calls of JavaScript objects, `[[id, target, method, [arguments], returns a value], …]`, or null. */
  takeCalls(): string | null
  /** Takes what native code reports, `[[is a warning, code, message], …]`, or null. */
  takeWarnings(): string | null
  /** Completes a call of a JavaScript object, with the JSON of its value or of its error. */
  completeCall(call: number, ok: boolean, text: string): void
  /**
   * Reads the series of the process: `[[name, { label: value }, number, null or buckets], …]`. A histogram's number is
   * its sum in seconds, and its buckets are cumulative: `[[upper bound in seconds, null for infinity; count], …]`.
   */
  metrics(): string
}

/** An event bus. */
export declare class NativeBus {
  /** Creates a bus without listeners. */
  constructor(bridge: Bridge)
  /** Publishes an event from JavaScript to native listeners. Returns whether one of them stores events that are not stored yet. */
  publish(event: string, subject?: string | undefined | null): boolean
  /** Returns whether the bus has native listeners. */
  hasListeners(): boolean
  /** Starts to deliver the announcements of native stores. Returns the id of the subscription. */
  subscribe(): number
  /** Sets whether there are handlers for a type (`*` for all) or, with `is_run`, for a run. */
  setInterest(key: string, isRun: boolean, isWanted: boolean): void
  /** Ends the subscription. */
  unsubscribe(): void
}

/** A cron pattern in a time zone. Times are Unix times in ms. */
export declare class NativeCalendar {
  /**
   * Parses a pattern and an IANA time zone; without one it is the machine's. `pattern_at` and `tz_at` name them in
   * messages.
   */
  constructor(pattern: string, tz: string | undefined | null, patternAt: string, tzAt: string)
  /** Returns the first due time after this one. */
  next(after: number): number | null
  /** Returns the last due time after `after` that is not later than `until`. */
  last(after: number, until: number): number | null
}

/** A durable consumer whose handler is a JavaScript object. */
export declare class NativeConsumer {
  /** Creates a consumer of a store. `target` handles its batches. */
  constructor(bridge: Bridge, store: NativeStore, name: string, target: number, options: string)
  /** Starts it; completes when its cursor is stored. To be called once. */
  start(): Reply
  /** Returns its numbers. */
  stats(): string
  /** Reads its parked events after a position. */
  parked(after: string | undefined | null, limit: number): Reply
  /** Delivers parked events again, these or all; replies with their number. */
  replay(positions?: Array<string> | undefined | null): Reply
  /** Waits for the handler at work, stores the cursor and stops. */
  stop(): Reply
}

/** The stream coordinator. */
export declare class NativeCoordinator {
  /** Creates a coordinator between a bus, or the feed of a store, and a native stream, or the JavaScript object `target`. */
  constructor(bridge: Bridge, bus: NativeBus, store: NativeStore | undefined | null, stream: NativeStream | undefined | null, target: number, options: string)
  /** Checks the options of a coordinator. `at` is their path in messages. */
  static check(at: string, options: string): void
  /** Starts routing. */
  start(): Reply
  /** Drains pending work within a timeout. */
  stop(): Reply
  /** Returns the counters. */
  stats(): string
}

/** The flow wiring. */
export declare class NativeFlowWiring {
  /** Creates flow wiring between a bus, a store and a queue. A target other than 0 is a JavaScript object. */
  constructor(bridge: Bridge, bus: NativeBus, store: NativeStore | undefined | null, storeTarget: number, queue: NativeQueue | undefined | null, queueTarget: number, subjects: string)
  /** Checks flow definitions, a JSON array. */
  static checkFlows(flows: string): void
  /** Checks the templates of subjects. */
  static checkSubjects(subjects: string): void
  /** Returns the state of a run after events, a JSON array, as JSON. */
  static stateOf(flow: string | undefined | null, events: string): string
  /** Replaces the flow definitions with those of a JSON array. */
  setFlows(flows: string): void
  /** Returns the queues of the flows, as a JSON array. */
  queues(): string
  /** Reports that a job of a JavaScript queue has failed permanently. */
  jobFailed(queue: string, jobId: string, name: string, reason?: string | undefined | null): void
  /** Claims the entry step of a run that is about to be started. Resolves with false where another process has it. */
  claimEntry(flow: string, runId: string): Reply
  /** Continues a run that is stored and perhaps known to no process. */
  takeUp(flow: string, runId: string): void
  /** Starts, and recovers the runs that the index has as running. */
  start(): Reply
  /** Drains pending work within a timeout. */
  stop(): Reply
  /** Returns the counters. */
  stats(): string
}

/** Sends webhooks. */
export declare class NativeHttp {
  /** Creates a client. */
  constructor(bridge: Bridge)
  /** Sends a signed POST; replies with `{ status, retryAfter, location, ms }`. */
  post(request: string): Reply
  /** Throws where a request to a URL with these headers and secrets could not be sent. */
  static check(url: string | undefined | null, headers: Array<Array<string>>, given: Array<string>): void
  /** Returns whether a signature of the header was made with one of the secrets. The age is for the caller to check. */
  static verify(given: Array<string>, id: string, timestamp: number, body: Buffer, signature: string): boolean
}

/** The queues of one adapter. */
export declare class NativeQueue {
  /** Creates queues in memory. */
  static memory(bridge: Bridge, options: string): NativeQueue
  /** Creates queues in a directory. */
  static file(bridge: Bridge, options: string): NativeQueue
  /** Opens the queues. */
  open(): Reply
  /** Adds a job; replies with its id. */
  enqueue(queue: string, job: string): Reply
  /** Adds a job for later, or again and again; replies with the id of the schedule. */
  schedule(queue: string, job: string, options: string): Reply
  /** Reads a job. */
  job(queue: string, id: string): Reply
  /** Reads a page of the jobs in these states. */
  jobs(queue: string, states: Array<string>, offset: number, limit?: number | undefined | null): Reply
  /** Counts the jobs of each state. */
  counts(queue: string): Reply
  /** Lists the schedules of a queue. */
  scheduled(queue: string): Reply
  /** Removes a schedule. */
  removeScheduled(id: string): Reply
  /** Removes a job. */
  removeJob(queue: string, id: string): Reply
  /** Makes a failed job wait for one more attempt. */
  retryJob(queue: string, id: string): Reply
  /** Sets whether workers of further queues wait for `start`. */
  holdWorkers(isHeld: boolean): void
  /** Replies whether the queues are usable: `{ ok, backend, detail? }`. */
  health(): Reply
  /** Copies all queues into a new file. */
  backup(path: string): Reply
  /** Reads everything; replies with `{ ok, problems }`. */
  verify(): Reply
  /** Returns whether a queue is paused. */
  isPaused(queue: string): Reply
  /** Pauses a queue. */
  pause(queue: string): Reply
  /** Resumes a queue. */
  resume(queue: string): Reply
  /** Delivers events of a queue; replies with the id of the subscription. */
  on(queue: string, event: string): Reply
  /** Removes a subscription of `on`. */
  off(id: number): Reply
  /** Delivers the cancellations of attempts, `{ token, reason }`; replies with the id of the subscription. */
  cancellations(): Reply
  /** Starts the attempt of a delivered job: its handler is called now. False: the job was revoked. */
  startAttempt(token: number): boolean
  /**
   * Delivers jobs of a name, as `{ token, job }`, to be answered by `complete` or `fail`; replies with the id of the
   * subscription.
   */
  registerWorker(queue: string, jobName: string, options: string): Reply
  /** Starts the workers of a queue. */
  start(queue: string): Reply
  /** Ends a job whose handler succeeded, after the events that the handler published have been stored. */
  complete(token: number, result: string): Reply
  /** Ends an attempt whose handler failed, after the events that the handler published have been stored. */
  fail(token: number, reason: string): Reply
  /** Frees the place of an attempt whose handler has settled and whose outcome follows. */
  settled(token: number): Reply
  /** Stores the progress of a handler. */
  progress(token: number, progress: string): Reply
  /** Stops the workers; running handlers have `timeout_ms`. Everything else goes on until `close`. */
  drain(timeoutMs: number): Reply
  /** Closes the queues; handlers have `limit_ms` to settle. */
  close(limitMs: number): Reply
}

/** Queues of a directory that are only read. Calls are synchronous: they are made by a command, not by a server. */
export declare class NativeQueueReader {
  /** Opens the queues of a directory. */
  constructor(dir: string)
  /** Returns the queues with the counts of their jobs. */
  queues(): string
  /** Returns a page of the jobs of a queue. */
  jobs(queue: string, states: Array<string>, offset: number, limit: number): string
  /** Copies the queues into a new file. */
  backup(path: string): void
  /** Returns what is wrong, in words. */
  verify(): Array<string>
}

/** A store of any backend. */
export declare class NativeStore {
  /** Reads a page of the feed. */
  feedRead(after: string | undefined | null, limit: number, subjects: Array<string>, types: Array<string>): Reply
  /** Returns the newest position. */
  feedHead(): Reply
  /** Lists the consumers. */
  consumers(): Reply
  /** Reads parked events of a consumer after a position. */
  parked(consumer: string, after: string | undefined | null, limit: number): Reply
  /** Requests that parked events of a consumer are delivered again, these or all; replies with their number. */
  replay(consumer: string, positions?: Array<string> | undefined | null): Reply
  /** Deletes a consumer and what it parked. */
  deleteConsumer(name: string): Reply
  /** Returns the version of SQLite in the addon. */
  static sqliteVersion(): string
  /** Creates a store in memory. Without a bus appends are announced nowhere. */
  static memory(bridge: Bridge, bus?: NativeBus | undefined | null): NativeStore
  /** Creates a store in the files of a directory. */
  static file(bridge: Bridge, bus: NativeBus | undefined | null, options: string): NativeStore
  /** Creates a store on Redis. */
  static redis(bridge: Bridge, bus: NativeBus | undefined | null, options: string): NativeStore
  /** Copies a file store while it is in use. */
  backup(path: string): Reply
  /** Reads everything in a file store and checks it. */
  verify(): Reply
  /** Replies with a page of a part of a file store after a row: `{ lines, rows, next }`. */
  exportPage(part: string, after: number, limit: number): Reply
  /** Stores lines of an export in a file store; replies with `{ added, skipped }`. */
  importLines(lines: string): Reply
  /** Adds or replaces an index entry of an export. */
  importEntry(key: string, id: string, score: number, metadata: string): Reply
  /** Replies with a page of the keys of indexes, as `subjects` does. */
  indexKeys(pattern: string, cursor?: string | undefined | null): Reply
  /** Replies with a page of values: `{ values: [{ key, value, expiresAt }], cursor }`. */
  kvPage(cursor?: string | undefined | null): Reply
  /** Stores an event that has an id, unless it is there; replies with whether it was stored. */
  importEvent(subject: string, event: string): Reply
  /** Sets the name of the instance that appends. */
  setInstance(instance: string): void
  /** Opens it. */
  open(): Reply
  /** Closes it. */
  close(): Reply
  /** Replies with whether it is usable. */
  health(): Reply
  /** Returns its counters. */
  stats(): string
  /**
   * Appends an event. `expected` is absent, `""` for an empty subject, or the id that the subject must end with.
   * `stamp_only`: replies with the record's id and ts alone, see [`Event::stamp_json`].
   */
  append(subject: string, event: string, expected: string | undefined | null, stampOnly: boolean): Reply
  /** Reads records. */
  read(subject: string, query?: string | undefined | null): Reply
  /** Subscribes to what is appended; replies with the id. */
  subscribe(subject: string): Reply
  /** Ends a subscription. */
  unsubscribe(id: number): Reply
  /** Deletes a subject. */
  deleteSubject(subject: string): Reply
  /** Reads a key. */
  kvGet(key: string): Reply
  /** Sets a key; the time to live is in seconds. */
  kvSet(key: string, value: string, ttl?: number | undefined | null): Reply
  /** Deletes a key. */
  kvDelete(key: string): Reply
  /** Deletes the keys that a glob matches. */
  kvClear(pattern: string): Reply
  /** Adds to a number. */
  kvIncrement(key: string, by: number): Reply
  /** Adds or replaces an entry of an index. */
  indexAdd(key: string, id: string, score: number, metadata?: string | undefined | null): Reply
  /** Reads an entry of an index. */
  indexGet(key: string, id: string): Reply
  /** Reads a page of an index. */
  indexRead(key: string, query?: string | undefined | null): Reply
  /** Merges into an entry of an index. */
  indexUpdate(key: string, id: string, patch: string, expectedVersion?: number | undefined | null): Reply
  /** Adds to a number in an entry of an index. */
  indexIncrement(key: string, id: string, field: string, by: number): Reply
  /** Deletes an entry of an index. */
  indexDelete(key: string, id: string): Reply
  /** Stores a document. */
  docSave(collection: string, id: string, doc: string): Reply
  /** Reads a document. */
  docGet(collection: string, id: string): Reply
  /** Returns the number of entries of an index that match. */
  indexCount(key: string, query?: string | undefined | null): Reply
  /** Returns a page of the subjects that a glob matches. */
  subjects(pattern: string, cursor?: string | undefined | null): Reply
  /** Lists documents. */
  docList(collection: string, query?: string | undefined | null): Reply
  /** Deletes a document. */
  docDelete(collection: string, id: string): Reply
}

/** A stream of any backend. */
export declare class NativeStream {
  /** Creates a stream in memory. */
  static memory(bridge: Bridge, options: string): NativeStream
  /** Creates a stream on Redis. */
  static redis(bridge: Bridge, options: string): NativeStream
  /** Opens it. */
  open(): Reply
  /** Publishes a message. */
  publish(topic: string, message: string): Reply
  /** Subscribes and replies with `[id, single]`. */
  subscribe(topic: string, options: string): Reply
  /** Ends a subscription. */
  unsubscribe(id: number): Reply
  /** Returns the topics and patterns with subscribers, as a JSON array. */
  topics(): string
  /** Returns the number of subscribers of exactly this topic or pattern. */
  subscriptionCount(topic: string): number
  /** Replies with what a group parked on a topic, as a JSON array. */
  parked(topic: string, group: string): Reply
  /** Publishes it again; replies with how many. */
  replayParked(topic: string, group: string): Reply
  /** Replies with whether it is usable. */
  health(): Reply
  /** Returns its counters. */
  stats(): string
  /** Closes it. */
  close(): Reply
}
