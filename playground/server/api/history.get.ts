/** The last seconds, for a page that has just been opened. */
export default defineEventHandler(() => recentSamples())
