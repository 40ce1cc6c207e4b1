/** A RegExp as a filter means what it means in JavaScript, or is refused. The real RegExp is the judge. */
import { runInNewContext } from 'node:vm'
import { MemoryStreamAdapter } from 'nvent-native'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Inbox, rejects, until } from './support/until'

let stream: MemoryStreamAdapter

beforeEach(() => {
  stream = new MemoryStreamAdapter()
})
afterEach(() => stream.shutdown())

const FLAGS = ['', 'i', 'u', 'iu', 'v', 's', 'm', 'y', 'gimsy']

/** Types that distinguish meanings: case, spaces, line terminators, letters beyond ASCII, pairs of surrogates. */
const TYPES = [
  '', 'a', 'A', 'b', 'ab', 'aB', 'abc', 'aab', 'aaab', 'ba', 'z', '0', '1', '8', '9', '12', 'a1', '_', '-', 'a-b', 'a.b', '.', ',',
  'flow.start', 'flow.completed', 'FLOW.START', 'step.completed', 'stream.gap', 'order-12', 'x{1}', 'x1g', 'u004g', 'u{1g}', 'a{', 'a{,2}', 'aa', '{', '}', ']', '[', '(', ')',
  'k', 'K', '\u212A', 's', 'S', 'ſ', 'ß', 'ẞ', 'SS', 'ss', 'é', 'É', 'e\u0301', 'aéa', 'σ', 'ς', 'Σ', 'µ', 'μ', 'Μ', 'ı', 'İ', 'i', 'I',
  'ǆ', 'ǅ', 'Ǆ', 'ÿ', 'Ÿ', 'ω', 'Ω', '\u2126', 'å', 'Å', '\u212B', 'ﬀ', 'ɦ', 'Ɦ', 'ꭰ', 'Ꭰ', 'ა', 'Ა', '٣', '५', 'Ⅷ', 'ⅷ', 'ⓐ', '中', 'あ',
  '\n', '\r', '\r\n', '\u2028', '\u2029', '\u0085', '\v', '\f', '\t', ' ', '\u00A0', '\uFEFF', '\u1680', '\u180E', '\u2003', '\u3000', '\u200B',
  'a\nb', 'a\rb', 'a\r\nb', 'a\u2028b', 'b\n', '\na', 'ab\n', 'a\n', 'x\na', '\0', '\x01', '\x07', '\x08', '\x1B', '\x7F', '\uFFFD', '\uE000', '\uFFFF',
  '\uD7FF', '\uFC00', '\u{10000}', '\u{10001}', '😀', 'a😀', '😀😀', '😁', '𐐀', '𐐨', '𝒜', '\u{10FFFF}', '\u{10D83D}', '\u{100000}', 'x😀y', '\\', '\\c', '\\cA', 'c', 'e', 'h', 'p', 'p{L}', 'u', 'uu', 'u{1}', 'x', 'xx',
  'q', '&', '&&', 'a&b', '~', '~~', '--', '^', '$', '|', '/', 'B', 'd', 'w', 'W', 'Z', 'm', 'M', ':', '@', '`', '{2}', '#', ' 0', '?7', '(\x01', '[\x01', ' a', 'a b', 'a#b', '?', '*', '+', 'foo bar', 'fooKbar', 'foo_bar',
]

const TABLE = [
  // Plain, alternatives, quantifiers.
  '', 'a', 'abc', '^flow\\.', 'compl', '^(flow|step)\\.(start|completed)$', '^(?:a|b|)$', '|', 'a|', '(|a)b', '()', '(?:)', 'a*', '^a*$', '^a+b$', '^a?b$', '^a??b$', '^a*?b+?$',
  '^a{2}$', '^a{2,}b', '^a{1,2}b', '^a{0}$', '^a{0,1}$', '^a{2,3}?b', '^(a|b){2}$', '^(?:a*)*b$', '^(?:a*)+$', '^(?:(?:)|a){2,3}$', '^(a+)+$', '(a|aa)+b', '^(?:^|a)*b', '(?<name>a)b', '(?<ǆ>a)b', '^(((a)))$',
  // Where a brace or a bracket is text.
  'a{', '{', '}', ']', 'a{,2}', 'x{1}', 'x{1', 'a{2,1', 'a{b}', '^{', 'a{1}{', '\\{', '[{]', '[}]', 'a{ 1}', '{a', '{}', 'u{1}', '^{,2}',
  // Anchors and boundaries.
  '^', '$', '^$', 'a$', '^a', 'a^', '$a', 'a$b', '^^a$$', '\\ba', 'a\\b', '\\bfoo\\b', 'foo\\b', '\\B', '^\\B$', '\\Ba', 'a\\B', 'é\\b', '\\bé', '\\Bé\\B', '\\bk\\b', '\\bſ', 's\\b', '\\B\\B', '(\\b|a)*$', 'a\\b\\B', '^\\b', '\\b$', '\\B$',
  '^a$', '^b', '(^|x)a', '($|x)', '^.$', '^\\s$', '^[^a]$', '^\\W+$', '^[^]+$', '(?:^a|b$)',
  // Dots, classes and their escapes.
  '.', '^.', '^..$', '^...$', 'a.b', '^.+$', '\\d', '^\\d+$', '\\D', '^\\D$', '\\w', '^\\w+$', '\\W', '^\\W$', '^\\W\\W$', '\\s', '^\\s+$', '\\S', '^\\S$', '^\\S\\S$',
  '[abc]', '^[a-c]+$', '[^a-c]', '^[^a-c]$', '[]', '[^]', '^[^]$', 'a[]', 'a|[]', '[^]b', '[a-]', '[-a]', '^[a\\-b]+$', '[.]', '[*+?]', '[$^]', '[\\^a]', '[a^]', '[\\]]', '[\\b]', '[\\d.]', '[\\w-]', '^[\\s\\S]$', '^[\\d\\D]$', '[^\\w]', '[^\\W]', '^[^\\W_]+$', '[^\\s\\d]',
  '[\\w-a]', '[a-\\d]', '[\\d-x]', '[+--]', '[--/]', '[ -~]', '^[!-/]$', '[A-z]', '[A-Z]', '[a-z]', '^[^A-Z]$', '[0-9A-Fa-f]',
  '[a&&b]', '[a&b]', '[a--b]', '[a~~b]', '[[a]', '[[:alpha:]]', '[a[b]c]', '[\\w&&\\d]', '[a||b]', '[(]', '[)]', '[a(b]', '[|]', '[#]', '[ ]', '#', ' ', 'a b', 'a#b', '[\\#]',
  // Escapes: identity, control, hexadecimal, octal, Unicode.
  '\\a', '\\A', '\\z', '\\Z', '\\h', '\\H', '\\e', '\\-', '\\_', '\\:', '\\@', '\\`', '\\ ', '\\/', '\\.', '\\*', '\\\\', '\\(', '\\[', '\\]', '\\}', '\\$', '\\^', '\\|', '\\?', '\\+', '\\#', '\\&', '\\~', '\\q', '\\m', '\\G', '\\K', '\\R', '\\X', '\\N', '\\i', '\\y', '\\é', '\\ſ', '\\<', '\\>',
  '\\t', '\\n', '\\v', '\\f', '\\r', '\\0', '[\\0]', '\\cA', '\\ca', '\\cG', '\\c', '\\c1', '\\c!', '[\\cA]', '[\\c1]', '[\\c_]', '[\\c]', '[\\c!]', '\\c\\', '[\\c-a]',
  '\\x41', '\\x4', '\\x', '\\xg1', 'x\\x', '[\\x41]', '[\\x]', '[\\x61-\\x63]', '\\x0a', '\\xe9', '\\xdf', '\\xb5', '\\xff', '\\x1g', '\\u004g', '\\u{1g}',
  '\\1', '\\7', '\\8', '\\9', '\\12', '\\18', '\\41', '\\101', '\\141', '\\377', '\\400', '\\777', '\\08', '\\00', '\\01', '\\001', '[\\1]', '[\\8]', '[\\101]', '[\\12-\\15]', '\\81', '[\\7\\8]', '(?:a)\\1', '\\2(?:a)', '[(]\\1', '\\(\\1', '[[(]\\1', '[\\](]\\1', '[\\q]', '((((((((((a))))))))))|\\11',
  '\\u0041', '\\u004', '\\u', '\\u{61}', '\\u{1}', '\\u{2}', '\\u{1F600}', '\\u{0}', '\\u{000000061}', '[\\u{61}]', '[\\u0061-\\u0063]', '\\u212a', '\\u017f', '\\u03c3', '\\u2028', '\\ud83d\\ude00', '[\\ud83d\\ude00]', '\\ud83d', '\\ude00', '\\ud83d$', '^\\ude00', '[\\ud800-\\udbff]', '^[\\ud800-\\udbff][\\udc00-\\udfff]$', '\\u{d83d}\\u{de00}', '\\u{d83d}', '[^\\ud83d]', '^[^\\ud800-\\udfff]+$', '[\\u0000-\\uffff]', '^[\\u{10000}-\\u{10ffff}]$', '^[^\\u0000-\\uffff]$', '\\udbff\\udfff', '[\\ud7ff-\\ue000]', '\\ufffd', '\\ue000', '\\ud800\\udc00', '\\ud7ff\\udc00', '\\ud800\\udbff', '\\ud800\\ue000', '[\\ud800\\u0041]', '[\\ud7ff]', '^[\\ud800]', '^[\\ud801]', '[\\udc00]$', '[\\udffe]$', '[\\udfff]$', '[\\ud7fe-\\ud800]', '^[\\ud7ff-\\udbff]', '[\\udfff-\\ue000]$', '^[^\\ud800]',
  '\\k', '\\k<a>', '[\\k]', '\\k{', '\\p', '\\P', '\\p{L}', '\\p{Lu}', '[\\p{L}]', '^\\p{L}+$', '\\P{L}', '^\\P{L}$', '^\\P{Lu}$', '^[^\\P{Lu}]$', '^[^\\p{Lu}]$', '\\p{Ll}', '\\p{Script=Greek}', '\\p{sc=Grek}', '\\p{scx=Deva}', '\\p{ASCII}', '^\\p{Any}$', '\\p{Alphabetic}', '\\p{White_Space}', '\\p{Nd}', '\\p{General_Category=Decimal_Number}', '\\p{gc=Lt}', '\\p{Uppercase}', '\\p{Lowercase}', '\\P{Lowercase}', '\\p{Emoji}', '\\p{Cn}', '\\p{Sc}', '\\p{Cf}', '\\p{L',
  // Letters beyond ASCII, and pairs of surrogates in the source.
  'é', '[é]', '^[à-ÿ]$', 'ß', 'ẞ', 'ss', 'σ', 'ς', 'Σ', 'µ', 'μ', 'ı', 'İ', 'i', 'I', 'ǆ', 'ǅ', 'ÿ', 'Ω', '\u2126', 'å', '\u212B', 'K', 'k', '\u212A', 'ſ', 's', '[^k]', '^[^ſ]$', '^[^s]$', '[j-l]', '[r-t]', '[ı-ſ]', 'ɦ', 'Ꭰ', 'ა', 'ⅷ', 'ⓐ', '[Α-Ω]', '[α-ω]', 'ﬀ', '中', '[あ-ん]',
  '😀', '^😀$', '😀+', '^😀{2}$', '[😀]', '^[😀]$', '[^😀]', '^[^😀]$', '[😀-😂]', '^[😀-😂]$', '😀?$', '(?:😀)+$', '^.😀', '𐐀', '[𐐀-𐐧]', '^.$', '^..$', '\u{10D83D}', '[\u{100000}-\u{10FFFF}]',
  // Sets.
  '[\\w&&[a-m]]', '[\\w--[a-m]]', '[[a-z]--[aeiou]]', '[^[a-z]--[b]]', '[[a-z][0-9]]', '[^[a-z]]', '[[^a-z]&&\\w]', '[\\p{L}--\\p{Lu}]', '[\\p{L}&&\\p{ASCII}]', '[\\p{L}&&\\p{ASCII}--k]', '[a-c\\d[x]]', '[^\\d]', '[^\\D]', '[\\p{Lu}&&\\p{Ll}]', '[^\\P{Lu}]', '[\\W&&s]', '[k--\u212A]', '[[k]&&[\u212A]]', '[\\-\\&]', '[a\\-z]', '[\\P{Lu}&&[A-Z]]', '[\\p{Lu}--[A-Z]]',
]

const REFUSED: Array<[RegExp, RegExp]> = [
  [/(?=a)b/, /a lookahead, \(\?=…\)/],
  [/a(?!b)/, /a lookahead, \(\?!…\)/],
  [/(?<=a)b/, /a lookbehind, \(\?<=…\)/],
  [/(?<!a)b/, /a lookbehind, \(\?<!…\)/],
  [/(a)\1/, /a back-reference, \\1,/],
  [/(a)\1/u, /a back-reference, \\1,/],
  // What is a group, and so a reference to one, depends on the classes and escapes before it.
  [/[[](a)\1/, /a back-reference, \\1,/],
  [/](a)\1/, /a back-reference, \\1,/],
  [/[a](b)\1/, /a back-reference, \\1,/],
  [/\[(b)\1/, /a back-reference, \\1,/],
  [new RegExp('[[a][b]](c)\\1', 'v'), /a back-reference, \\1,/],
  [/(b)\1a/, /a back-reference, \\1,/],
  [/((((((((((a))))))))))\9/, /a back-reference, \\9,/],
  [/((((((((((a))))))))))\10/, /a back-reference, \\10,/],
  [/(?<n>a)\k<n>/, /a back-reference, \\k,/],
  [new RegExp('[\\q{ab}]', 'v'), /a class of strings, \\q,/],
  [new RegExp('\\p{RGI_Emoji}', 'v'), /the property \\p\{RGI_Emoji\}/],
  [/\p{Cs}/u, /the property \\p\{Cs\}/],
  [/^\n/m, /flag m.*distinguishes line terminators/],
  [/[^\r]$/m, /flag m.*distinguishes line terminators/],
  [/a{20000}/, /more than 10000 times/],
  [new RegExp('a', 'iv'), /the flags i and v together/],
  [/(((a{1000}){1000}){1000})/, /more than 10 MB/],
  [new RegExp('('.repeat(200) + ')'.repeat(200)), /nests deeper than 100/],
  [new RegExp('a'.repeat(20_000)), /20000 characters; 10000/],
  [new RegExp('\uD83D'), /half of a surrogate pair/],
]

/** At the bounds of what is taken, and with the flag m what does not distinguish line terminators, or has neither ^ nor $. */
const TAKEN: RegExp[] = [
  new RegExp('a'.repeat(10_000)), new RegExp('('.repeat(99) + ')'.repeat(99)), new RegExp('(?:a?)'.repeat(150)), new RegExp(`^${'[a]?'.repeat(150)}$`), /^a{0,10000}$/,
  /^a/m, /b$/m, /^.$/m, /^\s$/m, /^\S/m, /^[^a]$/m, /^[\s\S]$/m, /^[\n\r\u2028\u2029]/m, /\b\n/m, /a\B|\r/m, /[^\n]/m,
]

/** Compiles it, or returns nothing where JavaScript does not. */
function compiled(source: string, flags: string): RegExp | undefined {
  try {
    return new RegExp(source, flags)
  }
  catch {
    return undefined
  }
}

/**
 * Where V8 departs from the standard: with u and v it finds \B in the middle of a pair of surrogates; in some versions [^]+ is one
 * character with v; and with i it can take U+007F for another character beside letters such as ſ.
 */
const departs = ({ source, flags }: RegExp, type: string): boolean =>
  /[uv]/.test(flags) && source.includes('\\B') && /[\u{10000}-\u{10FFFF}]/u.test(type)
  || flags.includes('v') && source.includes('[^]')
  || flags.includes('i') && type === '\x7F'

/** Subscribes with each filter, publishes all types, and returns what differs from JavaScript, and the filters that were refused. */
async function differences(filters: RegExp[]): Promise<{ wrong: string[], refused: Array<[RegExp, string]> }> {
  const refused: Array<[RegExp, string]> = []
  const taken: Array<[RegExp, Set<string>]> = []
  for (const filter of filters) {
    const types = new Set<string>()
    try {
      await stream.subscribe('t', ({ type }) => void types.add(type), { filter })
      taken.push([filter, types])
    }
    catch (error: any) {
      expect(error.code, String(filter)).toBe('NVENT_INVALID')
      refused.push([filter, error.message])
    }
  }
  const all = new Inbox()
  await stream.subscribe('t', all.take)
  for (const type of TYPES) await stream.publish('t', { type, data: 0 })
  await all.atLeast(TYPES.length)
  const expected = taken.map(([filter, types]) => new Set(TYPES.filter((type) => {
    filter.lastIndex = 0
    return departs(filter, type) ? types.has(type) : filter.test(type)
  })))
  const total = expected.reduce((sum, types) => sum + types.size, TYPES.length)
  // What is missing afterwards is shown with its type below.
  await until('everything is delivered', () => stream.stats().delivered + stream.stats().gaps >= total).catch(() => {})
  const wrong = taken.flatMap(([filter, types], i) => TYPES
    .filter(type => types.has(type) !== expected[i]!.has(type))
    .map(type => `${filter} on ${JSON.stringify(type)}: ${types.has(type)}`))
  return { wrong, refused }
}

it.each(FLAGS)('means what it means in JavaScript, with the flags "%s"', async (flags) => {
  const filters = TABLE.flatMap(source => compiled(source, flags) ?? [])
  expect(filters.length).toBeGreaterThan(200)
  const { wrong, refused } = await differences(filters)
  expect(wrong).toEqual([])
  // Only the flag m leaves something out of the table.
  const unexpected = refused.filter(([, message]) => !/distinguishes line terminators/.test(message))
  expect(unexpected).toEqual([])
})

it.each(TAKEN.map(filter => [String(filter).slice(0, 40), filter] as const))('takes %s', async (_, filter) => {
  expect(await differences([filter])).toEqual({ wrong: [], refused: [] })
})

it('means what it means in JavaScript, whatever the pattern', async () => {
  let state = 20260101
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor(state / 2 ** 32 * below)
  }
  const pick = <T>(of: T[]): T => of[random(of.length)]!
  const ATOMS = ['a', 'b', 'k', 's', 'S', '1', '8', '.', '\\d', '\\D', '\\w', '\\W', '\\s', '\\S', '\\b', '\\B', '^', '$', 'é', 'ſ', '\\u212a', '😀', '\\ud83d', '{', '}', ']', '\\c', 'A', '\\x', '\\u', '\\0', '\\12', '\\8', '\\-', '\\p{L}', '\\P{Ll}', '-', '&', '[^]', '[]', '\\n', '\\k', '{1}', 'σ', '\\.']
  const MEMBERS = ['a', 'k', 's', 'z', '0', '9', '-', '-', '^', '\\d', '\\W', '\\S', '\\w', 'é', 'ſ', 'Σ', '😀', '\\ude00', '&&', '--', '[', '\\]', '\\b', '\\c', '\\1', '\\p{Lu}', '\\P{Lu}', '[k]', 'A', 'Z', '.', '{']
  const klass = (): string => `[${pick(['', '', '^'])}${Array.from({ length: random(5) }, () => pick(MEMBERS)).join('')}]`
  const quantified = (atom: string): string => atom + pick(['', '', '', '*', '+', '?', '{2}', '{0,1}', '{1,}', '*?', '{,2}'])
  const pattern = (depth: number): string => Array.from({ length: 1 + random(4) }, () => {
    const kind = random(10)
    if (kind < 6 || depth === 0) return quantified(pick(ATOMS))
    if (kind < 8) return quantified(klass())
    return quantified(`${pick(['(', '(?:', '(?<n>'])}${pattern(depth - 1)}${pick(['', `|${pattern(depth - 1)}`])})`)
  }).join('')
  const filters: RegExp[] = []
  while (filters.length < 2_000) filters.push(...[compiled(pattern(2), pick(FLAGS)) ?? []].flat())
  const { wrong, refused } = await differences(filters)
  expect(wrong).toEqual([])
  for (const [filter, message] of refused) expect(message, String(filter)).toMatch(/back-reference|distinguishes line terminators/)
  expect(refused.length).toBeLessThan(filters.length / 10)
})

it('has the sets of characters that JavaScript has', async () => {
  // Where one of them begins or ends.
  const edges = [[0, 0x180], [0x1670, 0x1690], [0x1800, 0x1810], [0x1FF0, 0x2070], [0x2FF0, 0x3010], [0xD7F0, 0xD800], [0xE000, 0xE010], [0xFEF0, 0x10000]] as const
  const letters = edges.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => String.fromCharCode(from + i))).filter(c => c !== '\x7F')
  const inbox = new Inbox()
  const wanted: string[] = []
  for (const flags of ['', 'u', 'i', 'iu', 's']) {
    for (const set of ['.', '\\d', '\\D', '\\s', '\\S', '\\w', '\\W']) {
      const filter = new RegExp(`^${set}$`, flags)
      const handle = await stream.subscribe('t', ({ type }) => inbox.take(`${filter} ${type}`), { filter })
      for (const type of letters) await stream.publish('t', { type, data: 0 })
      wanted.push(...letters.filter(letter => filter.test(letter)).map(letter => `${filter} ${letter}`))
      await inbox.atLeast(wanted.length)
      await handle.unsubscribe()
    }
  }
  expect(inbox.items.sort()).toEqual(wanted.sort())
})

it('compares letters without regard to case as JavaScript does, all of the first plane', async () => {
  // But for those that Unicode 16 and 17 have brought, which not every Node knows.
  const letters = Array.from({ length: 0xFFFF }, (_, unit) => String.fromCharCode(unit))
    .filter(c => (c.toLowerCase() !== c || c.toUpperCase() !== c) && !/[\u1C89\u1C8A\uA7CB-\uA7DC]/.test(c))
  const inbox = new Inbox()
  const wanted: string[] = []
  for (const flags of ['i', 'iu']) {
    // Of each pair what has the other's case.
    for (const part of [letters.filter((_, i) => i % 2 === 0), letters.filter((_, i) => i % 2 === 1)]) {
      const filter = new RegExp(`^[${part.join('')}]$`, flags)
      await stream.subscribe(flags, inbox.take, { filter })
      wanted.push(...letters.filter(letter => filter.test(letter)))
    }
    for (const type of letters) await stream.publish(flags, { type, data: 0 })
  }
  await inbox.atLeast(wanted.length)
  expect(inbox.items.map(({ type }) => type).sort()).toEqual(wanted.sort())
})

it.each(REFUSED)('refuses %s and says why', async (filter, why) => {
  await rejects(stream.subscribe('t', () => {}, { filter }), 'NVENT_INVALID', why)
  expect(await stream.listTopics()).toEqual([])
})

it('matches in linear time', async () => {
  const inbox = new Inbox()
  for (const filter of [/^(a+)+$/, /^(a|a)*b$/, /(.*)*x/, /(?:a?){50}a{50}b/]) await stream.subscribe('t', inbox.take, { filter })
  await stream.publish('t', { type: 'a'.repeat(5_000) + '!', data: 0 })
  await stream.publish('t', { type: 'a', data: 0 })
  expect((await inbox.atLeast(1)).map(({ type }) => type)).toEqual(['a'])
})

it('takes a RegExp of another context', async () => {
  const inbox = new Inbox()
  await stream.subscribe('t', inbox.take, { filter: runInNewContext('/^b/') })
  for (const type of ['a', 'b']) await stream.publish('t', { type, data: 0 })
  expect((await inbox.atLeast(1)).map(({ type }) => type)).toEqual(['b'])
})
