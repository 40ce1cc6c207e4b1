/** Returns a glob that matches a name and nothing else. */
export const literal = (name: string): string => name.replace(/[*?[\]\\]/g, '\\$&')
