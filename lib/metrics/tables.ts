import type { BusStats, ConsumerStats, CoordinatorStats, FlowStats, QueueStats, StoreStats, StreamStats, TriggerStats, WebhookStats } from '../types'
import { declareMetrics } from './registry'
import type { Metric } from './registry'

/** The metrics of the adapters and wirings of this package, and where in their `stats()` each is. */

type Options<S> = Partial<Pick<Metric<S>, 'merge' | 'isShared'>>
const counter = <S>(name: string, help: string, value: Metric<S>['value'], more: Options<S> = {}): Metric<S> =>
  ({ name, help, type: 'counter', value, ...more })
const gauge = <S>(name: string, help: string, value: Metric<S>['value'], more: Options<S> = {}): Metric<S> =>
  ({ name, help, type: 'gauge', value, ...more })

const SHARED = { isShared: true } as const
const LARGEST = { merge: 'max' } as const
const seconds = (ms: number | undefined): number | undefined => ms === undefined ? undefined : ms / 1_000

/** Returns the values by a label, those that the backend has, or undefined where it has none. */
const by = (label: string, values: Record<string, number | undefined>): Array<[Record<string, string>, number]> | undefined => {
  const rows = Object.entries(values).flatMap(([name, value]) => value === undefined ? [] : [[{ [label]: name }, value] as [Record<string, string>, number]])
  return rows.length > 0 ? rows : undefined
}

export const STORE = declareMetrics<StoreStats>([
  counter('nvent_store_appends_total', 'Events appended, including those refused.', stats => stats.appends),
  counter('nvent_store_reads_total', 'Reading calls.', stats => stats.reads),
  counter('nvent_store_writes_total', 'Writing calls other than appends.', stats => stats.writes),
  counter('nvent_store_errors_total', 'Calls that failed in the backend.', stats => stats.errors),
  counter('nvent_store_handler_errors_total', 'Handlers of subscriptions and consumers that failed.', stats => stats['handlerErrors']),
  gauge('nvent_store_subjects', 'Subjects with events (memory).', stats => stats['subjects']),
  gauge('nvent_store_keys', 'Keys with values (memory).', stats => stats['keys']),
  gauge('nvent_store_indexes', 'Indexes (memory).', stats => stats['indexes']),
  gauge('nvent_store_subscriptions', 'Subscriptions (memory).', stats => stats['subscriptions']),
  gauge('nvent_store_file_bytes', 'Size of the files of the database (file).', stats => by('file', { db: stats['dbBytes'], wal: stats['walBytes'] }), SHARED),
  gauge('nvent_store_wal_pages', 'Pages of the write-ahead log (file).', stats => stats['walPages'], SHARED),
  counter('nvent_store_checkpoints_total', 'Checkpoints of the write-ahead log (file).', stats => stats['checkpoints'], SHARED),
  gauge('nvent_store_checkpoint_max_seconds', 'The longest checkpoint since the store was opened (file).', stats => seconds(stats['checkpointMaxMs']), LARGEST),
  gauge('nvent_store_pending_writes', 'Writes that wait for the writer (file).', stats => stats['queueDepth'], SHARED),
  counter('nvent_store_commit_groups_total', 'Groups of writes committed by the writer (file).', stats => stats['groups'], SHARED),
  counter('nvent_store_grouped_writes_total', 'Writes in these groups (file).', stats => stats['groupedWrites'], SHARED),
  gauge('nvent_store_commit_group_max_writes', 'The largest group since the store was opened (file).', stats => stats['groupSizeMax'], LARGEST),
  counter('nvent_store_inline_writes_total', 'Writes committed on the thread of their caller (file).', stats => stats['inlineWrites'], SHARED),
  gauge('nvent_store_sync_max_seconds', 'The longest commit that waited for the disk since the store was opened (file).', stats => seconds(stats['syncMaxMs']), LARGEST),
  counter('nvent_store_background_removals_total', 'Rows removed in the background: expired, deleted or beyond the retention (file).', stats => stats['removedInBackground'], SHARED),
  gauge('nvent_store_pending_requests', 'Requests that wait for a reply or a connection (Redis).', stats => stats['pending']),
  counter('nvent_store_reconnects_total', 'Connections made again after an outage (Redis).', stats => stats['reconnects']),
])

export const STREAM = declareMetrics<StreamStats>([
  counter('nvent_stream_published_total', 'Messages published, by this process.', stats => stats.published),
  counter('nvent_stream_delivered_total', 'Messages passed to handlers.', stats => stats.delivered),
  counter('nvent_stream_dropped_total', 'Messages that overflowed the buffer of a subscription.', stats => stats.dropped),
  counter('nvent_stream_gaps_total', 'Gaps reported to handlers.', stats => stats.gaps),
  counter('nvent_stream_handler_errors_total', 'Handlers that failed.', stats => stats.handlerErrors),
  counter('nvent_stream_reconnects_total', 'Connections made again after an outage.', stats => stats.reconnects),
  counter('nvent_stream_outages_total', 'Outages after which subscriptions received a gap or caught up (Redis).', stats => stats['outages']),
  gauge('nvent_stream_subscriptions', 'Subscriptions.', stats => stats['subscriptions']),
  gauge('nvent_stream_waiting', 'Messages in the buffers of subscriptions.', stats => stats['waiting']),
  gauge('nvent_stream_retained', 'Messages retained (memory).', stats => stats['retained']),
  gauge('nvent_stream_pending_requests', 'Requests that wait for a reply or a connection (Redis).', stats => stats['pending']),
])

export const QUEUE = declareMetrics<QueueStats>([
  counter('nvent_queue_enqueued_total', 'Jobs enqueued by this process.', stats => stats.enqueued),
  counter('nvent_queue_started_total', 'Attempts whose handler was called.', stats => stats.started),
  counter('nvent_queue_succeeded_total', 'Handlers that resolved.', stats => stats.completed),
  counter('nvent_queue_failed_total', 'Handlers that rejected.', stats => stats.failed),
  gauge('nvent_queue_running', 'Handlers at work.', stats => stats.running),
  gauge('nvent_queue_workers', 'Registered workers.', stats => stats.workers),
  counter('nvent_queue_handler_errors_total', 'Listeners that failed, and outcomes that could not be stored.', stats => stats.handlerErrors),
])

export const BUS = declareMetrics<BusStats>([
  counter('nvent_bus_published_total', 'Events published on event buses by the application.', stats => stats.published),
  gauge('nvent_bus_handlers', 'Handlers registered on event buses.', stats => stats.handlers),
  counter('nvent_bus_handler_errors_total', 'Handlers of event buses that failed.', stats => stats.handlerErrors),
])

export const CONSUMER = declareMetrics<ConsumerStats>([
  gauge('nvent_consumer_lag', 'Events stored after the position of the consumer.', stats => stats.lag, { merge: 'max' }),
  gauge('nvent_consumer_parked', 'Parked events of the consumer.', stats => stats.parked, { merge: 'max' }),
  gauge('nvent_consumer_active', '1 where this process holds the consumer, 0 where it stands by.', stats => Number(stats.active), { merge: 'max' }),
  counter('nvent_consumer_delivered_total', 'Events handled by this process.', stats => stats.delivered),
  counter('nvent_consumer_failed_total', 'Deliveries that failed in this process.', stats => stats.failed),
])

export const COORDINATOR = declareMetrics<CoordinatorStats>([
  counter('nvent_coordinator_routed_total', 'Messages that the stream accepted, by channel.', stats => by('channel', stats.routed)),
  counter('nvent_coordinator_skipped_total', 'Events that a channel takes but whose topic lacks a field.', stats => stats.skipped),
  counter('nvent_coordinator_failed_total', 'Messages that the stream did not accept.', stats => stats.failed),
  counter('nvent_coordinator_dropped_total', 'Events that were not published: beyond the limit, or removed before.', stats => stats['dropped']),
  counter('nvent_coordinator_retries_total', 'Repeated attempts to publish a message.', stats => stats['retries']),
  counter('nvent_coordinator_gaps_total', 'Gaps published.', stats => stats['gaps']),
  gauge('nvent_coordinator_lag', 'Events that are stored and not yet published.', stats => stats.lag),
])

export const FLOW = declareMetrics<FlowStats>([
  counter('nvent_flow_persisted_total', 'Ingress events persisted.', stats => stats.persisted),
  counter('nvent_flow_triggered_total', 'Steps enqueued.', stats => stats.triggered),
  counter('nvent_flow_completed_total', 'Runs that ended as completed.', stats => stats.completed),
  counter('nvent_flow_failed_total', 'Runs that ended as failed.', stats => stats.failed),
  counter('nvent_flow_retries_total', 'Repeated attempts of the wiring to store or enqueue.', stats => stats.retries),
  counter('nvent_flow_lost_total', 'Ingress events that were dropped after the last attempt.', stats => stats.lost),
  counter('nvent_flow_errors_total', 'Other permanent failures of the wiring.', stats => stats.errors),
  counter('nvent_flow_recovered_total', 'Steps run once more after a crash.', stats => stats.recovered),
  gauge('nvent_flow_lag', 'Ingress events that wait to be persisted.', stats => stats.lag),
])

export const WEBHOOKS = declareMetrics<WebhookStats>([
  counter('nvent_webhook_events_total', 'Events that became deliveries.', stats => stats.taken),
  counter('nvent_webhook_skipped_total', 'Events that came while their webhook was disabled.', stats => stats.skipped),
  counter('nvent_webhook_attempts_total', 'Attempts to deliver.', stats => stats.attempts),
  counter('nvent_webhook_delivered_total', 'Deliveries answered with 2xx.', stats => stats.delivered),
  counter('nvent_webhook_failed_attempts_total', 'Attempts that failed.', stats => stats.failed),
  counter('nvent_webhook_parked_total', 'Deliveries parked.', stats => stats.parked),
  gauge('nvent_webhook_running', 'Attempts under way.', stats => stats.running),
])

export const TRIGGERS = declareMetrics<TriggerStats>([
  counter('nvent_trigger_fired_total', 'Firings of triggers.', stats => stats.fired),
  counter('nvent_trigger_runs_total', 'Runs started by triggers.', stats => stats.started),
  counter('nvent_trigger_failed_attempts_total', 'Attempts to fire that failed.', stats => stats.failed),
  counter('nvent_trigger_depth_total', 'Causes stopped because their chain of flows was too long.', stats => stats.depth),
  gauge('nvent_trigger_waiting', 'Causes in debounce windows.', stats => stats.waiting),
  gauge('nvent_trigger_parked', 'Parked causes.', stats => stats.parked),
])

/** What the core measures, by the names of src/metrics.rs. */
export const NATIVE: Record<string, { help: string, type: 'counter' | 'gauge' | 'histogram' }> = {
  nvent_build_info: { type: 'gauge', help: '1, with the version of this package.' },
  nvent_store_append_seconds: { type: 'histogram', help: 'Time of a successful append from the call to the acknowledgement.' },
  nvent_store_sync_seconds: { type: 'histogram', help: 'Time of a commit that waits for the disk (file, durability disk).' },
  nvent_stream_publish_seconds: { type: 'histogram', help: 'Time of a successful publish from the call to the acknowledgement.' },
  nvent_channel_lag_seconds: { type: 'histogram', help: 'Time from the storage of an event to the acknowledgement of its message, by channel.' },
  nvent_queue_commit_seconds: { type: 'histogram', help: 'Time of a commit of the queue (file).' },
  nvent_queue_job_wait_seconds: { type: 'histogram', help: 'Time that a job waited from when it could run to its first attempt.' },
  nvent_queue_job_run_seconds: { type: 'histogram', help: 'Time that a handler ran, by queue and name of the job.' },
  nvent_queue_attempts_total: { type: 'counter', help: 'Ended attempts by their outcome: completed, failed, timed_out.' },
  nvent_queue_jobs: { type: 'gauge', help: 'Jobs of open queues by state. Those of a paused queue are waiting.' },
  nvent_queue_paused: { type: 'gauge', help: '1 where the queue is paused.' },
}
