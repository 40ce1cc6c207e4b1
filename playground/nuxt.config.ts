export default defineNuxtConfig({
  modules: ['nvent-native'],
  compatibilityDate: '2025-07-01',
  devtools: { enabled: false },
  css: ['~/main.css'],

  // The embedded default: the store and the queue are files in .data, the stream is in memory.
  nvent: {
    wiring: { streamCoordinator: { enableClientMessages: true } },
  },
  nventNative: {
    realtime: { authorize: '~~/server/utils/may-follow' },
    inspector: { authorize: '~~/server/utils/may-follow' },
  },

  app: {
    head: {
      title: 'nvent-native',
      htmlAttrs: { lang: 'en' },
      meta: [
        { name: 'description', content: 'Order flows on native adapters, live.' },
        { name: 'color-scheme', content: 'light dark' },
      ],
      // Before the first paint, so that a chosen theme does not flash.
      script: [{ innerHTML: `document.documentElement.dataset.theme=localStorage.getItem('theme')||''` }],
    },
  },
})
