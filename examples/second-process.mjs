/** The second of the two processes, started by the first. */
import { rmSync } from 'node:fs'
import { connect } from 'node:net'
import { runInstance } from './instance.mjs'

const [port, dir] = [Number(process.argv[2]), process.argv[3]]
await runInstance('second', process, port)
if (process.connected) process.disconnect()
// The first process exited without stopping the server.
else connect(port, '127.0.0.1').on('close', () => rmSync(dir, { recursive: true })).end('SHUTDOWN NOSAVE\r\n')
