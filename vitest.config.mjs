import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.ts'],
    // An addon per process, as in production. Threads are tested on purpose, in suites of their own.
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 240_000,
  },
})
