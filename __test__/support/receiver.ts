import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request that a receiver got. */
export interface Received { path: string, headers: IncomingHttpHeaders, id: string, body: string, answer: ServerResponse }

/** A receiver of webhooks: what it answers is up to the test. */
export class Receiver {
  readonly requests: Received[] = []
  /** Answers a request. Default 200. */
  respond: (request: Received) => void = ({ answer }) => void answer.end()

  private constructor(private readonly server: Server, readonly port: number) {}

  static async start(): Promise<Receiver> {
    const server = createServer((request, answer) => {
      let body = ''
      request.setEncoding('utf8').on('data', text => body += text)
      request.on('end', () => {
        const received = { path: request.url!, headers: request.headers, id: String(request.headers['webhook-id']), body, answer }
        receiver.requests.push(received)
        receiver.respond(received)
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const receiver = new Receiver(server, (server.address() as AddressInfo).port)
    return receiver
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`
  }

  /** Returns the requests to a path. */
  to(path: string): Received[] {
    return this.requests.filter(request => request.path === path)
  }

  async stop(): Promise<void> {
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }
}

const key = Symbol.for('nvent-native.webhook-times')

/** Sets the delays between the attempts of deliveries in this process, and how often lost jobs are looked for, in ms. */
export function setDelays(delays: number[] | undefined, sweepInterval?: number): void {
  (globalThis as any)[key] = { delays, sweepInterval }
}
