import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FileQueueAdapter } from 'nvent-native'
import { queueConformance } from './conformance/queue'

queueConformance('file', async () => {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'nvent-queue-'))
  return {
    open: options => new FileQueueAdapter({ ...options as any, dataDir }),
    dispose: () => rm(dataDir, { recursive: true }),
  }
}, { durable: true })
