import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.ts'],
    // Real Nuxt builds take minutes each: `npm run test:nuxt`.
    exclude: process.env.NVENT_TEST_NUXT ? [] : ['__test__/nuxt/**'],
    // An addon per process, as in production. Threads are tested on purpose, in suites of their own.
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 240_000,
  },
})
