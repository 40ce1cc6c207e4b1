/**
 * The public surface of nvent-native. `index.d.ts` at the root of the package is generated from here and from the
 * classes that implement it (`npm run types`).
 *
 * Members marked "nvent 0.5" have the shape that nvent 0.5 calls; "nvent 0.4.1" is the older surface of stores, the
 * same operations under other names.
 */
export type * from './events'
export type * from './store'
export type * from './feed'
export type * from './redis'
export type * from './stream'
export type * from './bus'
export type * from './wiring'
export type * from './flow'
export type * from './trigger'
export type * from './webhook'
export type * from './queue'
export type * from './adapters'
export type * from './errors'
