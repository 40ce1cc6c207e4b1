/** A redis-server for an example: on a free port, with nothing on disk. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** Starts it. It ends with `stop`, or with this process. */
export async function startRedis() {
  const port = await freePort()
  const child = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const kill = () => child.kill()
  process.once('exit', kill)
  await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', code => reject(new Error(`redis-server ended with code ${code} before it was ready`)))
    child.stdout.setEncoding('utf8').on('data', text => text.includes('Ready to accept connections') && resolve())
  })
  return {
    port,
    async stop() {
      process.off('exit', kill)
      kill()
      await once(child, 'exit')
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
