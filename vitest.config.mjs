import { defineConfig } from 'vitest/config'

const NUXT = '__test__/nuxt/**/*.test.ts'

export default defineConfig({
  test: {
    // An addon per process, as in production. Threads are tested on purpose, in suites of their own.
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 240_000,
    projects: [
      { extends: true, test: { name: 'js', include: ['__test__/**/*.test.ts'], exclude: [NUXT] } },
      // Real Nuxt builds take half a minute each.
      { extends: true, test: { name: 'nuxt', include: [NUXT] } },
    ],
  },
})
