/**
 * Runs orders end to end, through bus, store, coordinator, stream and queue, with the public API only.
 *
 *   npm run demo             store and queue are files in .data/demo; start it twice to see the runs of the first start
 *   npm run demo -- --memory nothing is persisted
 *   npm run demo -- --redis  two processes on one Redis, which the demo starts and stops; each shows what the other does;
 *                          kill any of the three to see the others continue
 */
await import(process.argv.includes('--redis') ? './two-processes.mjs' : './one-process.mjs')
