/** A redis-server for examples and benchmarks: on a free port, in a temporary directory, restarted when it exits. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { say } from './terminal.mjs'

/** Starts the server; `stop` or the end of this process stops it. `appendfsync` is Redis' own option. */
export async function startRedis({ appendfsync = 'always' } = {}) {
  const port = await freePort()
  const dir = mkdtempSync(join(tmpdir(), 'nvent-demo-redis-'))
  // With `always`, acknowledged writes are on disk, so that killing the server loses nothing.
  const args = ['--port', port, '--bind', '127.0.0.1', '--dir', dir, '--save', '', '--appendonly', 'yes', '--appendfsync', appendfsync]
  let child
  let stopping = false
  const kill = () => {
    stopping = true
    child.kill('SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  }
  process.once('exit', kill)

  async function start() {
    child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', code => reject(new Error(`redis-server ended with code ${code} before it was ready`)))
      child.stdout.setEncoding('utf8').on('data', text => text.includes('Ready to accept connections') && resolve())
    })
    child.once('exit', async (code, signal) => {
      if (stopping) return
      say(`redis-server exited (${signal ?? `code ${code}`}); restarting it`)
      try {
        await start()
        say(`redis-server is running again (process ${child.pid})`)
      }
      catch (error) {
        // It was stopped before it was ready.
        if (!stopping) throw error
      }
    })
  }
  await start()
  return {
    port,
    dir,
    get pid() { return child.pid },
    async stop() {
      stopping = true
      child.kill()
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}
