const parse = (version: string): [major: number, minor: number] => {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return [major, minor]
}

/** Returns whether this package runs on a version of Node: those in `engines` of package.json. */
export function isNodeSupported(version: string): boolean {
  const [major, minor] = parse(version)
  return major === 20 ? minor >= 19 : major === 22 ? minor >= 12 : major >= 24
}

/** Returns whether a version of Redis has the commands that are used: 6.2 or later. */
export function isRedisSupported(version: string): boolean {
  const [major, minor] = parse(version)
  return major > 6 || (major === 6 && minor >= 2)
}
