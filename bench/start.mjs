/** How long a file store with a million events takes to open, after a clean end and after kill -9. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const EVENTS = 1_000_000
const opener = fileURLToPath(new URL('opener.mjs', import.meta.url))

export default async function (bench) {
  const folder = mkdtempSync(join(process.env.NVENT_BENCH_DIR ?? '.', 'nvent-bench-'))
  try {
    await child({ folder, fill: Math.ceil(EVENTS * bench.scale), end: 'kill' })
    const size = Math.round(readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0) / 2 ** 20)
    const killed = []
    for (let round = 0; round < bench.rounds; round++) killed.push(await child({ folder, end: 'kill' }))
    await child({ folder, end: 'close' })
    const clean = []
    for (let round = 0; round < bench.rounds; round++) clean.push(await child({ folder, end: 'close' }))
    for (const [after, rounds] of [['kill -9', killed], ['a clean end', clean]]) {
      bench.note({
        name: `open, read and append once after ${after}, ${EVENTS.toLocaleString('en')} events, ${size} MiB`,
        unit: 'ms',
        figures: { native: rounds.map(({ ms }) => ms) },
        limit: 100,
      })
    }
    bench.note({
      name: 'memory that this adds to the process',
      unit: 'MiB',
      figures: { native: [...killed, ...clean].map(({ rss }) => rss) },
      limit: 64,
    })
  }
  finally {
    rmSync(folder, { recursive: true })
  }
}

/** Opens the store in a process of its own, which ends as asked. */
async function child(task) {
  const process = fork(opener, [JSON.stringify(task)])
  const ended = once(process, 'exit')
  const [report] = await Promise.race([once(process, 'message'), ended.then(() => [])])
  if (!report) throw new Error('a process of the benchmark ended before its time')
  if (task.end === 'kill') process.kill('SIGKILL')
  else process.send('close')
  await ended
  return report
}
