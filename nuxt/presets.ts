/** Which of Nitro's presets the package can run on: it needs a Node server. */
import { useLogger } from 'nuxt/kit'
import type { BuiltConfig } from './runtime/config.js'

const EDGE = /^cloudflare|-edge$|deno-deploy|winterjs|service-worker/
const SERVERLESS = /lambda|amplify|azure|vercel|netlify|firebase|edgio|stormkit|genezio/

/** Fails the build for edge runtimes, and warns of files on serverless platforms. `node` is false where the preset has no Node. */
export function checkPreset({ preset, node, static: isStatic }: { preset: string, node: boolean, static?: boolean }, { section }: BuiltConfig) {
  if (isStatic || preset === 'nitro-prerender' || preset === 'nitro-dev') return
  if (EDGE.test(preset) || !node) {
    throw new Error(
      `nvent-native cannot run on the Nitro preset '${preset}': it is a native addon for Node, and edge runtimes load none. `
      + 'Build for a Node server (preset node-server), or remove nvent-native from `modules` for this build.',
    )
  }
  const onFiles = [['store', section.store?.adapter], ['queue', section.queue?.adapter]].filter(([, adapter]) => (adapter ?? 'file') === 'file')
  if (SERVERLESS.test(preset) && onFiles.length > 0) {
    useLogger('nvent-native').warn(
      `The Nitro preset '${preset}' is serverless: each instance has a file system of its own, which ends with it, and ${onFiles.map(([kind]) => `nvent.${kind}.adapter`).join(' and ')} is 'file'. `
      + 'Use the store adapter `redis` and a queue service, or a preset with a long-running server.',
    )
  }
}
