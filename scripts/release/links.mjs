/** What a built addon needs of the C library. */

/** The oldest glibc that a release runs on. */
const GLIBC = [2, 17]

/** Returns the versions of glibc's symbols that an addon refers to and its target may not have. */
export function foreignSymbols(addon, target) {
  const versions = new Set([...addon.toString('latin1').matchAll(/\0GLIBC_(\d+)\.(\d+)(?:\.\d+)?(?=\0)/g)].map(([, major, minor]) => `${major}.${minor}`))
  const isNewer = (version) => {
    const [major, minor] = version.split('.').map(Number)
    return major > GLIBC[0] || major === GLIBC[0] && minor > GLIBC[1]
  }
  return [...versions].filter(version => target.endsWith('musl') || isNewer(version)).map(version => `GLIBC_${version}`)
}
