/** The demo on Redis: this process and a child process share a server that the demo starts. See `demo.mjs`. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { runInstance } from './instance.mjs'
import { startRedis } from './redis-server.mjs'
import { dim, heading, say } from './terminal.mjs'

// Stops the server with this process, however the process ends.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))

const redis = await startRedis().catch((error) => {
  if (error.code !== 'ENOENT') throw error
  console.error('This demo needs redis-server on the PATH: `apt install redis-server`, or `brew install redis`.')
  process.exit(1)
})

const second = fork(fileURLToPath(new URL('second-process.mjs', import.meta.url)), [redis.port, redis.dir])
heading(`Two processes on Redis at 127.0.0.1:${redis.port}: what each receives about the other's order`)
say(dim(`Kill any of them: redis-server is process ${redis.pid}, first ${process.pid}, second ${second.pid}`))
const exit = once(second, 'exit')
await runInstance('first', second, redis.port)
const [code] = await exit
await redis.stop()
process.exitCode = code ?? 1
say()
