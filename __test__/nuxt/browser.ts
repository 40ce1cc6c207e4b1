import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'

export const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** Debian's chromium, or Chrome, from the PATH. */
export async function chromiumPath() {
  for (const folder of process.env['PATH']!.split(':')) {
    for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
      const path = join(folder, name)
      if (await access(path, constants.X_OK).then(() => true, () => false)) return path
    }
  }
  throw new Error('These tests need Chromium on the PATH: apt-get install chromium')
}
