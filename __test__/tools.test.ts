/** What `npm test` and `.ci/run` do on a machine that lacks a program. */
import { mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { runFile } from './support/process'

const { missingTools } = await import(new URL('../scripts/tools.mjs', import.meta.url).href)
const on = (...commands: string[]) => ({ has: (command: string) => commands.includes(command), isRoot: false })

it('ends at once with what to install, before anything is compiled', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'nvent-tools-'))
  await symlink(process.execPath, join(dir, 'node'))
  const { code, stdout, stderr } = await runFile('../scripts/test.mjs', [], { env: { ...process.env, PATH: dir } })
  await rm(dir, { recursive: true })
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^missing: cc, redis-server, chromium, cargo\. Run this, then try again:\n/)
})

it('gives the exact command for the package manager that is there', () => {
  const command = (...there: string[]) => missingTools(['redis-server', 'chromium'], on('cargo', ...there))
  expect(command('apt-get').advice).toEqual(['sudo apt-get install -y --no-install-recommends redis-server chromium'])
  expect(command('apt-get', 'google-chrome').advice).toEqual(['sudo apt-get install -y --no-install-recommends redis-server'])
  expect(command('brew').advice).toEqual(['brew install redis chromium'])
  expect(command('redis-server', 'chromium')).toMatchObject({ missing: [], advice: [], automatic: false })
})

it('installs by itself only as root, with apt', () => {
  const automatic = (isRoot: boolean, ...there: string[]) => missingTools(['chromium'], { ...on(...there), isRoot }).automatic
  expect(automatic(true, 'cargo', 'apt-get')).toBe(true)
  expect(automatic(false, 'cargo', 'apt-get')).toBe(false)
  expect(automatic(true, 'cargo', 'dnf')).toBe(false)
  // Rust comes from rustup, which is for the user to decide.
  expect(automatic(true, 'apt-get')).toBe(false)
})
