/** A queue in files: workers, attempts, a delay, a schedule, and a graceful end. */
import { FileQueueAdapter } from 'nvent-native'
import { once, EventEmitter } from 'node:events'

const queue = new FileQueueAdapter({ dataDir: '.data/example-queue' })
const events = new EventEmitter()
const alive = setInterval(() => {}, 60_000)

queue.registerWorker('mail', 'welcome', async (job) => {
  if (job.attemptsMade === 0) throw new Error('the mail server does not answer')
  return { sentTo: job.data.to }
}, { concurrency: 10 })
queue.registerWorker('mail', 'reminder', async () => 'reminded')
queue.registerWorker('mail', 'report', async () => void events.emit('report'))
queue.on('mail', 'completed', ({ jobId }) => events.emit(jobId))

const stamp = Date.now()
const [welcome, reminder, report] = [`welcome-${stamp}`, `reminder-${stamp}`, once(events, 'report')]
const ended = Promise.all([once(events, welcome), once(events, reminder)])

// The same id again is the same job.
for (let n = 0; n < 2; n++) {
  await queue.enqueue('mail', { name: 'welcome', data: { to: 'ada@example.org' }, opts: { jobId: welcome, attempts: 3, backoff: 50 } })
}
await queue.enqueue('mail', { name: 'reminder', data: {}, opts: { jobId: reminder, delay: 100 } })
const schedule = await queue.schedule('mail', { name: 'report', data: {} }, { cron: '* * * * * *' })
queue.startProcessingQueue('mail')

await ended
const { returnvalue, attemptsMade } = await queue.getJob('mail', welcome)
console.log(`sent to ${returnvalue.sentTo} at attempt ${attemptsMade}`)
await report
console.log('the schedule fired')
await queue.removeScheduledJob(schedule)
const { completed, failed } = await queue.getJobCounts('mail')
console.log(`${completed > 0 ? 'jobs completed' : 'nothing completed'}, ${failed} failed`)

// Waits for handlers that run; waiting jobs are there at the next start.
await queue.close()
clearInterval(alive)
