/** A registry of our own: verdaccio, which keeps what is published to it, and passes everything else on to the real one. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

/** 6.8.0 is the newest for Node 20; what it asks for of node-fetch cannot be installed. */
const MANIFEST = { private: true, dependencies: { verdaccio: '6.8.0' }, overrides: { 'node-fetch': '2.7.0' } }

/** Starts the registry in a directory, empty. Returns `{ url, publish, install, stop }`. */
export async function startRegistry(dir) {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'package.json'), JSON.stringify(MANIFEST))
  npm(['install', '--no-audit', '--no-fund'], dir)
  const storage = join(dir, 'storage')
  rmSync(storage, { recursive: true, force: true })
  const upstream = npm(['config', 'get', 'registry'], dir).trim()
  writeFileSync(join(dir, 'config.yaml'), JSON.stringify({
    storage, uplinks: { npm: { url: upstream, timeout: '2m', maxage: '1h' } }, log: { type: 'stdout', level: 'warn' }, max_body_size: '100mb',
    packages: { 'nvent-native*': { access: '$all', publish: '$all' }, '**': { access: '$all', proxy: 'npm' } },
  }))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}/`
  // What npm asks for before it publishes; the registry takes anything.
  writeFileSync(join(dir, 'npmrc'), `registry=${url}\n//127.0.0.1:${port}/:_authToken=none\n`)
  const child = spawn(process.execPath, [join(dir, 'node_modules/verdaccio/bin/verdaccio'), '--config', join(dir, 'config.yaml'), '--listen', `127.0.0.1:${port}`], { stdio: 'ignore' })
  for (let answers = false; !answers;) {
    if (child.exitCode !== null) throw new Error(`verdaccio ended with ${child.exitCode}`)
    await new Promise(resolve => setTimeout(resolve, 100))
    answers = await fetch(new URL('-/ping', url)).then(response => response.ok, () => false)
  }
  const ours = ['--userconfig', join(dir, 'npmrc'), '--registry', url]
  return {
    url,
    publish: tarball => npm(['publish', tarball, '--access', 'public', ...ours], dir),
    install: (project, ...args) => npm(['install', ...args, '--no-audit', '--no-fund', '--prefer-online', ...ours], project),
    stop: () => child.kill(),
  }
}

/** Runs npm, and returns what it printed. */
export function npm(args, cwd) {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd, encoding: 'utf8', shell: process.platform === 'win32' })
  if (status !== 0) throw new Error(`npm ${args.join(' ')}:\n${stderr}${stdout}`)
  return stdout
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise(ready => server.once('listening', ready))
  const { port } = server.address()
  await new Promise(done => server.close(done))
  return port
}
