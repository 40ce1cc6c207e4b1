/**
 * Makes the packages of a release: the root, with exact optional dependencies on one package per platform, and those for
 * which an addon is there (`nvent-native.<target>.node` in the checkout). Nothing of the checkout is changed.
 *
 * `node scripts/pack.mjs [directory]` writes the tarballs, by default to target/packages.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeNotices } from './notices.mjs'
import { root } from './shared.mjs'

/** Unpacked sizes that a release must not exceed, in bytes: a little more than they are. */
const MAX_UNPACKED_SIZE = { root: 1_500_000, platform: 13_200_000 }

/** Returns what is wrong with the size of a packed package, if anything is. */
export function sizeProblem({ name, unpackedSize }) {
  const limit = name === 'nvent-native' ? MAX_UNPACKED_SIZE.root : MAX_UNPACKED_SIZE.platform
  return unpackedSize > limit ? `${name} is ${unpackedSize} bytes unpacked, more than ${limit}` : undefined
}

const PLATFORMS = { linux: ['linux'], darwin: ['darwin'], win32: ['win32'] }
const LIBC = { gnu: ['glibc'], musl: ['musl'] }

/** Returns what a Rust target is called in names of files and packages, such as `linux-x64-gnu`. */
export function shortName(triple) {
  const arch = triple.startsWith('x86_64') ? 'x64' : 'arm64'
  if (triple.includes('apple')) return `darwin-${arch}`
  if (triple.includes('windows')) return `win32-${arch}-msvc`
  return `linux-${arch}-${triple.endsWith('musl') ? 'musl' : 'gnu'}`
}

const manifest = () => JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** Returns the targets of a release, as `linux-x64-gnu`. */
export const targets = () => manifest().napi.targets.map(shortName)

/**
 * Returns the root's manifest as it is published: no scripts, nothing for development but Nuxt, by which `nuxt module add`
 * recognises a module, exact platform packages.
 */
export function publishedManifest() {
  const { scripts: _scripts, devDependencies: { nuxt }, napi: _napi, ...kept } = manifest()
  return {
    ...kept,
    devDependencies: { nuxt },
    optionalDependencies: Object.fromEntries(targets().map(target => [`nvent-native-${target}`, kept.version])),
  }
}

/** Returns the manifest of a platform's package. */
export function platformManifest(target) {
  const { version, license, homepage, repository, bugs, engines } = manifest()
  const [platform, arch, libc] = target.split('-')
  return {
    name: `nvent-native-${target}`,
    version,
    description: `The binary of nvent-native for ${target}`,
    license,
    homepage,
    repository,
    bugs,
    engines,
    os: PLATFORMS[platform],
    cpu: [arch],
    ...LIBC[libc] && { libc: LIBC[libc] },
    main: `nvent-native.${target}.node`,
    files: [`nvent-native.${target}.node`, 'THIRD-PARTY-NOTICES.md'],
  }
}

/** Links and pictures that work on the registry's page, where there is no checkout. */
export function registryReadme() {
  const address = manifest().homepage.replace(/#.*/, '')
  return readFileSync(join(root, 'README.md'), 'utf8').replaceAll(/\]\((?!https?:|#)([^)\s]+)\)/g, (_, path) =>
    `](${address}/${/\.(png|svg)$/.test(path) ? 'raw' : 'blob'}/HEAD/${path})`)
}

/** Lays out one directory per package below `directory`, for the addons that are there. Returns their paths, root last. */
export function stage(directory, addons = root) {
  rmSync(directory, { recursive: true, force: true })
  const main = join(directory, 'nvent-native')
  mkdirSync(main, { recursive: true })
  const published = publishedManifest()
  writeFileSync(join(main, 'package.json'), `${JSON.stringify(published, null, 2)}\n`)
  writeFileSync(join(main, 'README.md'), registryReadme())
  for (const path of ['LICENSE', ...published.files]) if (existsSync(join(root, path))) cpSync(join(root, path), join(main, path), { recursive: true })
  writeNotices(main)
  const platforms = targets().filter(target => existsSync(join(addons, `nvent-native.${target}.node`))).map((target) => {
    const dir = join(directory, `nvent-native-${target}`)
    mkdirSync(dir)
    writeFileSync(join(dir, 'package.json'), `${JSON.stringify(platformManifest(target), null, 2)}\n`)
    writeFileSync(join(dir, 'README.md'), `The binary of [nvent-native](${published.homepage}) for ${target}. Install \`nvent-native\` instead.\n`)
    copyFileSync(join(addons, `nvent-native.${target}.node`), join(dir, `nvent-native.${target}.node`))
    for (const path of [join(root, 'LICENSE'), join(main, 'THIRD-PARTY-NOTICES.md')]) copyFileSync(path, join(dir, path.split(/[\\/]/).at(-1)))
    return dir
  })
  return [...platforms, main]
}

/** Packs staged packages; returns what npm says of each tarball. */
export function pack(dirs, destination) {
  mkdirSync(destination, { recursive: true })
  return dirs.map((dir) => {
    const { stdout, stderr, status } = spawnSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', destination], {
      cwd: dir, encoding: 'utf8', shell: process.platform === 'win32',
    })
    if (status !== 0) throw new Error(`npm pack in ${dir}: ${stderr}`)
    const [packed] = Object.values(JSON.parse(stdout))
    return { ...packed, path: join(destination, packed.filename) }
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const destination = resolve(process.argv[2] ?? join(root, 'target/packages'))
  const packed = pack(stage(join(destination, 'staged')), destination)
  for (const { name, path, unpackedSize } of packed) console.log(`${name}  ${(unpackedSize / 1e6).toFixed(1)} MB  ${path}`)
  const problems = packed.map(sizeProblem).filter(Boolean)
  if (problems.length > 0) {
    console.error(problems.join('\n'))
    process.exit(1)
  }
}
