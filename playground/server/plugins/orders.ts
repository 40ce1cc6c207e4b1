export default defineNitroPlugin((nitroApp) => {
  nitroApp.hooks.hook('nvent:wiring', (options) => {
    options.flow = { flows: [order] }
  })
  nitroApp.hooks.hook('nvent:adapters:ready', async (context) => {
    nitroApp.hooks.hook('close', await startMonitor(context))
  })

  // Nitro waits for open connections before it closes, and event streams never end by themselves.
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, endEventStreams)
})
