/**
 * What the addon is linked from: THIRD-PARTY-NOTICES.md with every licence text, and an SBOM (CycloneDX).
 * `node scripts/notices.mjs [directory]` writes both.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { buildSync } from 'esbuild'
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

/** Returns the npm packages that are bundled into the command and the inspector's page, as crates are described. */
export function bundledPackages() {
  const { metafile } = buildSync({
    absWorkingDir: root, entryPoints: ['lib/cli/main.ts'], bundle: true, write: false, metafile: true, format: 'cjs', platform: 'node', target: 'node20',
    external: ['*.node', 'nvent-native-*', '@opentelemetry/api'],
  })
  // As scripts/build.mjs has written them down.
  const ofPage = JSON.parse(readFileSync(join(root, 'dist/nuxt/inspector/packages.json'), 'utf8')).map(name => `node_modules/${name}`)
  const dirs = new Set([...Object.keys(metafile.inputs).flatMap(file => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? []), ...ofPage])
  return [...dirs].map((dir) => {
    const manifest = join(root, dir, 'package.json')
    const { name, version, license, repository } = JSON.parse(readFileSync(manifest, 'utf8'))
    const url = (typeof repository === 'string' ? repository : repository?.url)?.replace(/^git\+/, '').replace(/\.git$/, '')
    return { name, version, license, repository: url?.startsWith('http') ? url : undefined, manifest_path: manifest, purl: `pkg:npm/${name.replace('@', '%40')}@${version}` }
  }).sort((a, b) => a.name.localeCompare(b.name))
}

/** Returns the licence texts of a crate, or of a package. */
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
export function notices(crates, packages = []) {
  const texts = new Map()
  for (const crate of [...crates, ...packages]) {
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
    ...packages.length === 0
      ? []
      : [
          '', 'These npm packages are bundled into the command (dist/cli.cjs) and the page of the inspector (dist/nuxt/inspector):', '', '| package | version | licence |', '|---|---|---|',
          ...packages.map(({ name, version, license, repository }) => `| ${repository ? `[${name}](${repository})` : name} | ${version} | ${license} |`),
        ],
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
      'bom-ref': crate.purl ?? `pkg:cargo/${crate.name}@${crate.version}`,
      'name': crate.name,
      'version': crate.version,
      'purl': crate.purl ?? `pkg:cargo/${crate.name}@${crate.version}`,
      'licenses': [{ expression: crate.license.replaceAll(/ *\/ */g, ' OR ') }],
    })),
  }
}

/** Writes both files into a directory. */
export function writeNotices(directory) {
  const [crates, packages] = [linkedCrates(), bundledPackages()]
  writeFileSync(join(directory, 'THIRD-PARTY-NOTICES.md'), notices(crates, packages))
  writeFileSync(join(directory, 'sbom.cdx.json'), `${JSON.stringify(sbom([...crates, ...packages]), null, 2)}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeNotices(process.argv[2] ?? root)
