/**
 * Orders run end to end, through bus, store, coordinator, stream and queue, with the public API only.
 *
 *   npm run demo             store and queue are files in .data/demo: start it twice, and the runs of the first are still there
 *   npm run demo -- --memory nothing is kept
 *   npm run demo -- --redis  two processes on one Redis, which the demo starts and stops: each shows what the other does;
 *                          kill any of the three, and see the others go on
 */
await import(process.argv.includes('--redis') ? './two-processes.mjs' : './one-process.mjs')
