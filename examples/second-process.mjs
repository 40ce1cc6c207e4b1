/** The second of the two processes; the first one starts it. */
import { runInstance } from './instance.mjs'

await runInstance('second', process, Number(process.argv[2]))
process.disconnect()
