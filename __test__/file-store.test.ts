import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FileStoreAdapter } from 'nvent-native'
import { storeConformance } from './conformance/store'

storeConformance('file', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-file-'))
  return {
    open: options => new FileStoreAdapter({ ...options, dataDir }),
    dispose: () => rm(dataDir, { recursive: true }),
  }
}, { backend: 'file', sharedNames: false, durable: true })
