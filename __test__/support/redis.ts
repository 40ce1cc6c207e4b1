import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { promisify } from 'node:util'

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** The server that the tests run against. The full test run repeats the contracts on others. */
const SERVER = process.env['NVENT_TEST_REDIS_SERVER'] ?? 'redis-server'

/** A redis-server on a free port, without persistence. */
export class RedisServer {
  private constructor(readonly port: number, private child: ChildProcess) {}

  static async start(port?: number, ...args: string[]): Promise<RedisServer> {
    const chosen = port ?? await freePort()
    const child = spawn(SERVER, ['--port', String(chosen), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...args], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    await new Promise<void>((resolve, reject) => {
      child.once('error', error => reject(new Error(`${SERVER} cannot be started`, { cause: error })))
      child.once('exit', code => reject(new Error(`redis-server ended with code ${code} before it was ready`)))
      child.stdout!.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('Ready to accept connections')) resolve()
      })
    })
    return new RedisServer(chosen, child)
  }

  get connection(): { host: string, port: number } {
    return { host: '127.0.0.1', port: this.port }
  }

  /** Removes every key of a database. */
  async flush(db: number): Promise<void> {
    await this.cli('-n', String(db), 'flushdb')
  }

  /** Runs redis-cli and returns its output. */
  async cli(...args: string[]): Promise<string> {
    return (await promisify(execFile)('redis-cli', ['-p', String(this.port), ...args])).stdout.trim()
  }

  /** Returns the ids of the open connections of this package. */
  async connections(): Promise<string[]> {
    const list = (await this.cli('client', 'list')).split('\n').filter(line => line.includes(' name=nvent-native '))
    return list.map(line => /^id=(\d+)/.exec(line)![1]!)
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}
