import { defineCommand, parseArgs } from 'citty'
import type { ArgsDef } from 'citty'
import { didYouMean } from '../check'
import { NventError } from '../errors'
import { version } from '../../package.json'
import { listConsumers, listJobs, listParked, replay } from './consumers'
import { doctor } from './doctor'
import { backup, verify } from './maintenance'
import { Output, UsageError } from './output'
import { listRuns, showEvents, showRun } from './runs'
import { openStore, where } from './source'
import type { Source, Where } from './source'
import { exportStore, importStore } from './transfer'

/** Exit codes. */
const FAILED = 1
const USAGE = 2
const PROBLEMS = 3
const INTERRUPTED = 130

const COMMON = {
  dir: { type: 'string', description: 'data directory (default .data, or NVENT_DIR): the folder with store and queue, or the store itself', valueHint: 'path' },
  redis: { type: 'string', description: 'a store on Redis instead (or NVENT_REDIS)', valueHint: 'url' },
  prefix: { type: 'string', description: 'its prefix (default nvent, or NVENT_PREFIX)', valueHint: 'name' },
  json: { type: 'boolean', description: 'one JSON value per line; the default where the output is no terminal (--no-json: tables)' },
  color: { type: 'boolean', description: 'colours (--no-color, or NO_COLOR: none)' },
  help: { type: 'boolean', alias: 'h', description: 'show this' },
} as const satisfies ArgsDef
const LIMIT = { type: 'string', description: 'at most so many (default 20)', valueHint: 'n' } as const
const OFFSET = { type: 'string', description: 'leave so many out', valueHint: 'n' } as const
const FOLLOW = { type: 'boolean', alias: 'f', description: 'go on with what is appended; Ctrl-C ends it' } as const

interface Context { at: Where, out: Output, args: Record<string, any> }
interface Command { description: string, args: ArgsDef, run(context: Context): Promise<number | void> }

async function withStore(at: Where, out: Output, opts: { write?: boolean, create?: boolean }, work: (source: Source) => Promise<void>): Promise<void> {
  const source = await openStore(at, opts)
  try {
    if (source.heldBy !== undefined && !out.json) out.note(out.style('dim', `process ${source.heldBy} has ${source.name} open; reading beside it`))
    await work(source)
  }
  finally {
    await source.store.close()
  }
}

const count = (args: Record<string, any>, name: 'limit' | 'offset', fallback: number): number => {
  const value = args[name] ?? fallback
  const number = Number(value)
  if (!Number.isInteger(number) || number < (name === 'limit' ? 1 : 0)) throw new UsageError(`--${name}: expected a whole number, got ${JSON.stringify(value)}`)
  return number
}

const COMMANDS: Record<string, Command> = {
  runs: {
    description: 'Runs of all flows, or of one, newest first',
    args: { flow: { type: 'positional', required: false, description: 'name of a flow' }, status: { type: 'string', description: 'running, completed, failed, canceled; several with commas', valueHint: 'status' }, limit: LIMIT, offset: OFFSET },
    run: async ({ at, out, args }) => {
      const page = { limit: count(args, 'limit', 20), offset: count(args, 'offset', 0) }
      await withStore(at, out, {}, source => listRuns(source, out, { ...args, ...page }))
    },
  },
  run: {
    description: 'A run: its steps, jobs, parked events and its log',
    args: { id: { type: 'positional', required: true, description: 'id of the run' }, follow: FOLLOW },
    run: ({ at, out, args }) => withStore(at, out, {}, source => showRun(source, at, out, { runId: args['id'], follow: Boolean(args['follow']) })),
  },
  events: {
    description: 'The last events of a subject',
    args: { subject: { type: 'positional', required: true, description: 'the subject, such as nq:flow:<run>' }, type: { type: 'string', description: 'only these types; several with commas', valueHint: 'types' }, after: { type: 'string', description: 'those after an id instead', valueHint: 'id' }, limit: LIMIT, follow: FOLLOW },
    run: async ({ at, out, args }) => {
      const limit = count(args, 'limit', 20)
      await withStore(at, out, {}, source => showEvents(source, out, { ...args, subject: args['subject'], follow: Boolean(args['follow']), limit }))
    },
  },
  jobs: {
    description: 'Queues with the counts of their jobs, or the jobs of one',
    args: { queue: { type: 'positional', required: false, description: 'name of a queue' }, status: { type: 'string', description: 'waiting, active, delayed, paused, failed, completed; several with commas', valueHint: 'status' }, limit: LIMIT, offset: OFFSET },
    run: ({ at, out, args }) => listJobs(at, out, { ...args, limit: count(args, 'limit', 20), offset: count(args, 'offset', 0) }),
  },
  consumers: {
    description: 'Durable consumers, how far they are, and what they parked',
    args: {},
    run: ({ at, out }) => withStore(at, out, {}, source => listConsumers(source, out)),
  },
  parked: {
    description: 'Events that consumers have failed at too often, and why',
    args: { consumer: { type: 'positional', required: false, description: 'name of a consumer' }, after: { type: 'string', description: 'those after a position', valueHint: 'position' }, limit: LIMIT },
    run: async ({ at, out, args }) => {
      const limit = count(args, 'limit', 20)
      await withStore(at, out, {}, source => listParked(source, out, { ...args, limit }))
    },
  },
  replay: {
    description: 'Has parked events delivered again: writes',
    args: { consumer: { type: 'positional', required: true, description: 'name of a consumer' }, positions: { type: 'positional', required: false, description: 'positions, as `parked` shows them' }, all: { type: 'boolean', description: 'all of them' } },
    run: async ({ at, out, args }) => {
      const [consumer, ...positions] = args['_'].map(String)
      if (Boolean(args['all']) === positions.length > 0) throw new UsageError('replay: say which positions, or --all')
      await withStore(at, out, { write: true }, source => replay(source, out, { consumer, positions, all: Boolean(args['all']) }))
    },
  },
  verify: {
    description: 'Reads every page and row of store and queue; exit code 3 where something is wrong',
    args: {},
    run: async ({ at, out }) => await verify(at, out) ? 0 : PROBLEMS,
  },
  backup: {
    description: 'Copies store and queue into a new directory, also while they are in use',
    args: { path: { type: 'positional', required: true, description: 'the new directory' } },
    run: ({ at, out, args }) => backup(at, out, args['path']),
  },
  export: {
    description: 'Writes everything as lines of JSON to standard output',
    args: { after: { type: 'string', description: 'go on after the "at" of a line', valueHint: 'position' } },
    run: ({ at, out, args }) => withStore(at, out, {}, source => exportStore(source, out, args['after'])),
  },
  import: {
    description: 'Stores the lines of an export, from standard input or a file: writes',
    args: { file: { type: 'positional', required: false, description: 'a file instead of standard input' } },
    run: ({ at, out, args }) => withStore(at, out, { write: true, create: true }, source => importStore(source, out, args['file'])),
  },
  doctor: {
    description: 'Looks for what keeps the package from working, and says what to do; exit code 3 where something does',
    args: {},
    run: async ({ at, out }) => await doctor(at, out) ? 0 : PROBLEMS,
  },
}

const flags = (args: ArgsDef): string[][] => Object.entries(args).filter(([, arg]) => arg.type !== 'positional').map(([name, arg]) => {
  const alias = (arg as { alias?: string }).alias
  return [`${alias ? `-${alias}, ` : ''}--${name}${arg.type === 'boolean' ? '' : ` <${(arg as { valueHint?: string }).valueHint}>`}`, arg.description ?? '']
})

const shape = (args: ArgsDef): string => Object.entries(args).filter(([, arg]) => arg.type === 'positional').map(([name, arg]) => arg.required ? ` <${name}>` : name === 'positions' ? ` [${name}…]` : ` [${name}]`).join('')

const columns = (rows: string[][]): string => {
  const width = Math.max(...rows.map(([name = '']) => name.length))
  return rows.map(([name = '', text]) => `  ${name.padEnd(width)}  ${text}`).join('\n')
}

function usage(name?: string): string {
  const command = name === undefined ? undefined : COMMANDS[name]
  if (command) return [`usage: nvent-native ${name}${shape(command.args)} [options]`, '', `  ${command.description}`, '', 'options:', columns(flags({ ...command.args, ...COMMON }))].join('\n')
  return [
    'usage: nvent-native <command> [options]', '', 'commands:',
    columns([...Object.entries(COMMANDS).map(([name, { args, description }]) => [`${name}${shape(args)}`, description]), ['demo [--memory | --redis]', 'An order flow, end to end; start it twice, and everything is still there']]),
    '', 'options of all commands:', columns(flags(COMMON)), '',
    'A directory that a server has open is read beside it; what writes is refused there. Times are local, in JSON ISO 8601.',
    'Exit codes: 0 done, 1 failed, 2 wrong use, 3 verify or doctor found problems, 130 interrupted.',
  ].join('\n')
}

/** Checks the options against those of the command: the parser takes any. */
function checkOptions(raw: string[], args: ArgsDef): void {
  const names = Object.entries(args).filter(([, arg]) => arg.type !== 'positional')
  const positionals = Object.keys(args).length - names.length
  let given = 0
  for (let i = 0; i < raw.length; i++) {
    const arg = raw[i]!
    if (arg === '--') break
    if (!arg.startsWith('-') || arg === '-') {
      given += 1
      continue
    }
    const [name = '', inline] = arg.startsWith('--') ? arg.slice(2).split(/=(.*)/s) : [arg.slice(1)]
    const found = names.find(([known, def]) => arg.startsWith('--') ? name === known || def.type === 'boolean' && name === `no-${known}` : (def as { alias?: string }).alias === name)
    if (!found) throw new UsageError(`${arg.split('=')[0]} is not known${didYouMean(`--${name}`, names.map(([known]) => `--${known}`))}`)
    if (found[1].type === 'boolean') {
      if (inline !== undefined) throw new UsageError(`--${found[0]}: takes no value`)
      continue
    }
    const value = inline ?? raw[++i]
    if (value === undefined || value === '' || inline === undefined && value.startsWith('--')) throw new UsageError(`--${found[0]}: its value is missing`)
  }
  if (given > positionals && !('positions' in args)) throw new UsageError(`expected at most ${positionals} ${positionals === 1 ? 'argument' : 'arguments'}, got ${given}`)
}

async function main(argv: string[]): Promise<number> {
  const [name, ...raw] = argv
  if (name === undefined || ['help', '--help', '-h'].includes(name)) {
    process.stdout.write(`${usage(raw[0] !== undefined && Object.hasOwn(COMMANDS, raw[0]) ? raw[0] : undefined)}\n`)
    return 0
  }
  if (name === '--version' || name === '-v') {
    process.stdout.write(`${version}\n`)
    return 0
  }
  if (!Object.hasOwn(COMMANDS, name)) throw new UsageError(`there is no command ${JSON.stringify(name)}${didYouMean(name, [...Object.keys(COMMANDS), 'demo'])}`)
  const { description, args: own, run } = COMMANDS[name]!
  const definition = { ...own, ...COMMON }
  if (raw.includes('--help') || raw.includes('-h')) {
    process.stdout.write(`${usage(name)}\n`)
    return 0
  }
  checkOptions(raw, definition)
  const command = defineCommand({ meta: { name, description }, args: definition })
  const args: Record<string, any> = parseArgs(raw, command.args as ArgsDef)
  const out = new Output({ json: args['json'], color: args['color'] })
  return await run({ at: where(args), out, args }) ?? 0
}

/** A reader that has enough, such as head, is no failure. */
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit(0)
  })
}
process.on('SIGINT', () => process.exit(INTERRUPTED))

main(process.argv.slice(2)).then((code) => {
  process.exitCode = code
}, (error: unknown) => {
  const wrongUse = error instanceof UsageError || (error as Error)?.name === 'CLIError'
  const text = error instanceof Error ? error.message : String(error)
  process.stderr.write(`nvent-native: ${error instanceof NventError ? `${error.code}: ` : ''}${text}\n`)
  if (wrongUse) process.stderr.write('`nvent-native help` shows how it is used\n')
  process.exitCode = wrongUse ? USAGE : FAILED
})
