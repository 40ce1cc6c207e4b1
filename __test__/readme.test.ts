import { mkdtemp, rm, symlink, writeFile, mkdir } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { execFile } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Returns the first block of code in README.md that contains a word. */
function block(word: string): string {
  const blocks = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/```(?:js|ts)\n([\s\S]*?)```/g)]
  return blocks.map(([, code]) => code!).find(code => code.includes(word))!
}

test('the first flow of the README has at most 15 lines and runs as it is printed', async () => {
  const code = block('defineFlow')
  expect(code.split('\n').filter(line => line.trim() !== '').length).toBeLessThanOrEqual(15)
  const folder = await mkdtemp(join(tmpdir(), 'nvent-readme-'))
  try {
    await mkdir(join(folder, 'node_modules'))
    await symlink(root, join(folder, 'node_modules', 'nvent-native'), 'dir')
    await writeFile(join(folder, 'first.mjs'), code)
    // Twice: what the first one stored is there.
    for (let start = 0; start < 2; start++) {
      const { stdout, stderr } = await promisify(execFile)(process.execPath, ['first.mjs'], { cwd: folder, timeout: 30_000 })
      expect(stderr).toBe('')
      expect(stdout).toContain('{ status: \'completed\' }')
    }
  }
  finally {
    await rm(folder, { recursive: true, force: true })
  }
})
