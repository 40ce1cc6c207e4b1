/** Every link in the documentation leads somewhere. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const markdown = (dir: string): string[] => readdirSync(join(root, dir)).filter(name => name.endsWith('.md')).map(name => join(dir, name))
const pages = [...markdown('.'), ...markdown('docs'), ...markdown('bench')]
const read = (page: string): string => readFileSync(join(root, page), 'utf8')

/** The names that headings can be linked to by. */
function anchors(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => heading!.toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '').trim().replaceAll(' ', '-'))
}

/** Links and pictures outside of code. */
function links(text: string): string[] {
  const prose = text.replace(/^```.*?^```/gms, '').replace(/`[^`\n]*`/g, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!)
}

it.each(pages)('the links of %s lead somewhere', (page) => {
  const broken = links(read(page)).filter(target => !/^https?:/.test(target)).filter((target) => {
    const [path = '', anchor] = target.split('#')
    const file = path === '' ? page : join(dirname(page), path)
    if (!existsSync(join(root, file))) return true
    return anchor !== undefined && file.endsWith('.md') && !anchors(read(file)).includes(anchor)
  })
  expect(broken).toEqual([])
})

it('every page of docs is in its table of contents', () => {
  const listed = links(read('docs/README.md'))
  expect(markdown('docs').map(page => page.slice('docs/'.length)).filter(page => page !== 'README.md' && !listed.includes(page))).toEqual([])
})

it('the README has at most 120 lines', () => {
  expect(read('README.md').trimEnd().split('\n').length).toBeLessThanOrEqual(120)
})
