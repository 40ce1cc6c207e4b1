import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FileStoreAdapter } from 'nvent-native'
import { expect, it } from 'vitest'
import { storeConformance } from './conformance/store'
import { rejects } from './support/until'

storeConformance('file', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-file-'))
  return {
    open: options => new FileStoreAdapter({ ...options, dataDir }),
    dispose: () => rm(dataDir, { recursive: true }),
  }
}, { backend: 'file', sharedNames: false, durable: true })

it('is copied by backup once that resolves, is verified, and leaves no log of its own once close does', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-file-'))
  const copy = path.join(dataDir, 'copy')
  await mkdir(copy)
  const store = new FileStoreAdapter({ bus: null, dataDir })
  const records = []
  for (let n = 0; n < 200; n++) records.push(await store.append('s', { type: 'x', n }))
  await store.backup(path.join(copy, 'nvent.db'))
  // As it is in this very moment.
  const restored = new FileStoreAdapter({ bus: null, dataDir: copy })
  expect(await restored.read('s')).toEqual(records)
  await restored.close()
  await rejects(store.backup(path.join(copy, 'nvent.db')), 'NVENT_INVALID', /nvent\.db/)
  expect(await store.verify()).toMatchObject({ ok: true, problems: [] })
  await store.close()
  expect((await readdir(dataDir)).filter(name => name.endsWith('-wal'))).toEqual([])
  await rm(dataDir, { recursive: true })
})
