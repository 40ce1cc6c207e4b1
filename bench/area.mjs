/** Runs one area in this process, and sends its rows to the one that started it. */
import { Bench } from './harness.mjs'

const { area, ...options } = JSON.parse(process.argv[2])
const bench = new Bench(options)
const { default: run } = await import(`./${area}.mjs`)
await run(bench)
process.send(bench.results, () => process.exit())
