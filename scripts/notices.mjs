/**
 * What the addon is linked from: THIRD-PARTY-NOTICES.md with every licence text, and an SBOM (CycloneDX).
 * `node scripts/notices.mjs [directory]` writes both.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { root } from './shared.mjs'

/** Returns the crates that end up in the addon: no tools, no tests. */
export function linkedCrates() {
  const { stdout, status, stderr } = spawnSync('cargo', ['metadata', '--format-version', '1', '--locked'], {
    cwd: root, encoding: 'utf8', maxBuffer: 1 << 28,
  })
  if (status !== 0) throw new Error(`cargo metadata: ${stderr}`)
  const { packages, resolve } = JSON.parse(stdout)
  const nodes = new Map(resolve.nodes.map(node => [node.id, node]))
  const reached = new Set()
  const visit = (id) => {
    if (reached.has(id)) return
    reached.add(id)
    for (const { pkg, dep_kinds: kinds } of nodes.get(id).deps) if (kinds.some(({ kind }) => kind === null)) visit(pkg)
  }
  visit(resolve.root)
  return packages.filter(({ id }) => reached.has(id) && id !== resolve.root)
    .sort((a, b) => a.name.localeCompare(b.name) || a.version.localeCompare(b.version))
}

/** Returns the licence texts of a crate. */
function textsOf({ manifest_path: manifest }) {
  const dir = dirname(manifest)
  return readdirSync(dir).filter(name => /^(licen[cs]e|copying|notice|unlicense)/i.test(name) && !name.endsWith('.html')).sort().flatMap((name) => {
    try {
      return [readFileSync(join(dir, name), 'utf8').replaceAll('\r\n', '\n').trim()]
    }
    catch {
      return []
    }
  })
}

/** Returns the notices as Markdown: a list of crates, then each distinct text once. */
export function notices(crates) {
  const texts = new Map()
  for (const crate of crates) {
    for (const text of textsOf(crate)) {
      const key = createHash('sha256').update(text.replace(/\s+/g, ' ')).digest('hex')
      const known = texts.get(key) ?? { text, crates: [] }
      known.crates.push(`${crate.name} ${crate.version}`)
      texts.set(key, known)
    }
  }
  return [
    '# Third-party notices',
    '',
    'The binaries of nvent-native are linked from these crates, and from SQLite, which is in the public domain.',
    '',
    '| crate | version | licence |',
    '|---|---|---|',
    ...crates.map(({ name, version, license, repository }) => `| ${repository ? `[${name}](${repository})` : name} | ${version} | ${license} |`),
    ...[...texts.values()].flatMap(({ text, crates }) => ['', `## ${crates.join(', ')}`, '', '```text', text.replaceAll('```', '\'\'\''), '```']),
    '',
  ].join('\n')
}

/** Returns the software bill of materials. */
export function sbom(crates) {
  const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: { component: { 'type': 'library', 'bom-ref': `pkg:npm/${name}@${version}`, name, version, 'purl': `pkg:npm/${name}@${version}` } },
    components: crates.map(crate => ({
      'type': 'library',
      'bom-ref': `pkg:cargo/${crate.name}@${crate.version}`,
      'name': crate.name,
      'version': crate.version,
      'purl': `pkg:cargo/${crate.name}@${crate.version}`,
      'licenses': [{ expression: crate.license.replaceAll(/ *\/ */g, ' OR ') }],
    })),
  }
}

/** Writes both files into a directory. */
export function writeNotices(directory) {
  const crates = linkedCrates()
  writeFileSync(join(directory, 'THIRD-PARTY-NOTICES.md'), notices(crates))
  writeFileSync(join(directory, 'sbom.cdx.json'), `${JSON.stringify(sbom(crates), null, 2)}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeNotices(process.argv[2] ?? root)
