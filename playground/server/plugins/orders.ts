import { orderFlow, STEPS } from '#shared/order'

export default defineNitroPlugin((nitroApp) => {
  nitroApp.hooks.hook('nvent:wiring', (options) => {
    options.flow = { flows: [orderFlow] }
  })

  nitroApp.hooks.hook('nvent:adapters:ready', async (context) => {
    const stop = await startMonitor(context)
    nitroApp.hooks.hook('close', stop)

    for (const step of STEPS) {
      context.queue.registerWorker('orders', step, job => runStep(step, job), { concurrency: 64 })
    }
    context.queue.startProcessingQueue('orders')
  })

  // Nitro waits for open connections before it closes, and event streams never end by themselves.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, endEventStreams)
})
