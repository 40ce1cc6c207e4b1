import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import { createApp, createRouter, send, setResponseStatus, toNodeListener, type EventHandler } from 'h3'

const RUNTIME = fileURLToPath(new URL('../../dist/nuxt/runtime/', import.meta.url))

/**
 * Bundles a file of the module's runtime, or several, as Nitro does and resolves with what they export. `modules` is the
 * source of those that the build of an app generates, by name; `dev` is whether it is the development server's, `prerender`
 * whether it renders routes during the build.
 */
export async function bundled<T = any>(file: string | string[], modules: Record<string, string>, dev = false, prerender = false): Promise<T> {
  const { outputFiles: [output] } = await build({
    ...typeof file === 'string'
      ? { entryPoints: [join(RUNTIME, file)] }
      : { stdin: { contents: file.map(name => `export * from './${name}'`).join('\n'), resolveDir: RUNTIME } },
    bundle: true, write: false, format: 'esm', platform: 'node', logLevel: 'error',
    define: { 'import.meta.dev': String(dev), 'import.meta.prerender': String(prerender) },
    plugins: [{
      name: 'modules of an app',
      setup(build) {
        build.onResolve({ filter: /^#/ }, ({ path }) => ({ path, namespace: 'generated' }))
        build.onLoad({ filter: /./, namespace: 'generated' }, ({ path }) => ({ contents: modules[path], resolveDir: RUNTIME }))
        build.onResolve({ filter: /^(h3|nvent-native\/native)$/ }, ({ path }) => ({ path: import.meta.resolve(path), external: true }))
      },
    }],
  })
  const dir = await mkdtemp(join(tmpdir(), 'nvent-bundled-'))
  try {
    await writeFile(join(dir, 'bundle.mjs'), output!.contents)
    return await import(pathToFileURL(join(dir, 'bundle.mjs')).href)
  }
  finally {
    await rm(dir, { recursive: true })
  }
}

/** Serves handlers by their routes, errors as JSON, each request on a connection of its own. Resolves with the address, and what ends it. */
export async function serve(routes: Record<string, EventHandler>) {
  const router = createRouter()
  for (const [route, handler] of Object.entries(routes)) router.use(route, handler)
  const app = createApp({
    onRequest: event => void event.node.res.setHeader('connection', 'close'),
    onError: async (error, event) => {
      setResponseStatus(event, error.statusCode, error.statusMessage)
      await send(event, JSON.stringify(error.toJSON()), 'application/json')
    },
  })
  const server = createServer(toNodeListener(app.use(router))).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const stop = () => {
    server.closeAllConnections()
    return new Promise(resolve => server.close(resolve))
  }
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop }
}
