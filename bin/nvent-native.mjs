#!/usr/bin/env node
/** The command of the package. `demo` is a program of its own: the first five minutes, without a clone. */
const [command, ...args] = process.argv.slice(2)

if (command === 'demo') {
  process.argv = [...process.argv.slice(0, 2), ...args]
  await import('../examples/demo.mjs')
}
else {
  await import('../dist/cli.cjs')
}
