/** What nvent 0.5 calls on adapters, as far as types go; see the calls in its documentation. Only types: tsc is the test. */
interface Stored { id: string, ts: number, type: string, [field: string]: any }

export interface NventStore {
  close(): Promise<void>
  stream: {
    append(subject: string, event: { type: string, runId?: string, flowName?: string, data?: any, [field: string]: any }): Promise<Stored>
    read(subject: string, opts?: { types?: string[], limit?: number, order?: 'asc' | 'desc' }): Promise<Stored[]>
    subscribe(subject: string, onEvent: (event: Stored) => void): Promise<{ unsubscribe(): void | Promise<void> }>
    delete(subject: string): Promise<boolean>
  }
  kv: {
    get<T = any>(key: string): Promise<T | null>
    set<T = any>(key: string, value: T, ttl?: number): Promise<void>
    delete(key: string): Promise<void>
    clear(pattern: string): Promise<number>
    increment(key: string, by?: number): Promise<number>
  }
  index: {
    add(key: string, id: string, score: number, metadata?: Record<string, any>): Promise<void>
    get(key: string, id: string): Promise<{ id: string, score: number, metadata?: any } | null>
    read(key: string, opts?: { offset?: number, limit?: number, filter?: Record<string, any> }): Promise<Array<{ id: string, score: number, metadata?: any }>>
    update(key: string, id: string, metadata: Record<string, any>): Promise<boolean>
    updateWithRetry(key: string, id: string, metadata: Record<string, any>, maxRetries?: number): Promise<void>
    increment(key: string, id: string, field: string, by?: number): Promise<number>
    delete(key: string, id: string): Promise<boolean>
  }
}

/** The store of nvent 0.4.1. */
export interface OlderNventStore {
  append(subject: string, event: { type: string, data?: any }): Promise<Stored>
  read(subject: string, opts?: { limit?: number }): Promise<Stored[]>
  save(collection: string, id: string, doc: any): Promise<void>
  get(collection: string, id: string): Promise<any>
  list(collection: string, opts?: { limit?: number }): Promise<Array<{ id: string, doc: any }>>
  delete(collection: string, id: string): Promise<void>
  indexAdd(key: string, id: string, score: number, metadata?: any): Promise<void>
  indexRead(key: string, opts?: { limit?: number }): Promise<Array<{ id: string, score: number, metadata?: any }>>
}

interface Message { type: string, data: any, timestamp?: number, metadata?: Record<string, any> }

export interface NventStream {
  init(): Promise<void>
  publish(topic: string, event: Message): Promise<void>
  subscribe(topic: string, handler: (event: Message) => void | Promise<void>): Promise<{ unsubscribe: () => Promise<void> }>
  listTopics(): Promise<string[]>
  getSubscriptionCount(topic: string): Promise<number>
  shutdown(): Promise<void>
}

export interface NventQueue {
  init(): Promise<void>
  enqueue(queue: string, job: { name: string, data: any, opts?: { attempts?: number, jobId?: string, timeout?: number } }): Promise<string>
  getJob(queue: string, id: string): Promise<{ id: string, name: string, data: any, state: string } | null>
  getJobs(queue: string, query?: { state?: Array<'waiting' | 'active' | 'completed' | 'failed'>, limit?: number }): Promise<Array<{ id: string }>>
  getJobCounts(queue: string): Promise<Record<'waiting' | 'active' | 'completed' | 'failed' | 'delayed' | 'paused', number>>
  isPaused(queue: string): Promise<boolean>
  on(queue: string, event: 'waiting' | 'active' | 'completed' | 'failed' | 'progress', callback: (payload: any) => void): () => void
  registerWorker(queue: string, name: string, handler: (job: any, ctx: any) => Promise<any>, opts?: { concurrency?: number, autorun?: boolean }): void
  startProcessingQueue(queue: string): void
  close(): Promise<void>
}
