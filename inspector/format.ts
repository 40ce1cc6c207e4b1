export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 60) return `${minutes} min ${Math.floor(ms % 60_000 / 1_000)} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

export function age(ts: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - ts) / 1_000))
  if (seconds < 5) return 'now'
  if (seconds < 60) return `${seconds} s ago`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h ago`
  return `${Math.floor(seconds / 86_400)} d ago`
}

export const clock = (ts: number) => new Date(ts).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' })
export const count = (value: number) => value.toLocaleString('en')

/** Pieces of JSON text with their kind, to be coloured. They are shown as text, never as HTML. */
export function pieces(value: unknown): Array<{ kind: string, text: string }> {
  const json = JSON.stringify(value, null, 2) ?? 'undefined'
  const found: Array<{ kind: string, text: string }> = []
  let at = 0
  for (const match of json.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?/gi)) {
    if (match.index > at) found.push({ kind: '', text: json.slice(at, match.index) })
    const [text, string, colon] = match
    found.push({ kind: string === undefined ? 'literal' : colon === undefined ? 'string' : 'key', text })
    at = match.index + text.length
  }
  found.push({ kind: '', text: json.slice(at) })
  return found
}
