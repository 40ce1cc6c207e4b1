import { loadAddon } from './loader'

/** The addon. What it exports is declared in src/node, from which binding.d.ts is generated. */
export const addon: typeof import('./binding') = loadAddon()
