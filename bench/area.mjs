/** Runs one area in this process and sends its rows to the parent process. */
import { Bench } from './harness.mjs'

// The package does not keep the process alive for a delivery; a server has its sockets.
setInterval(() => {}, 60_000)

const { area, ...options } = JSON.parse(process.argv[2])
const bench = new Bench(options)
const { default: run } = await import(`./${area}.mjs`)
await run(bench)
process.send(bench.results, () => process.exit())
