import { randomUUID } from 'node:crypto'

/** Names this JavaScript environment: the default of `metadata.instanceId`, and who has appended an event. */
export const INSTANCE = randomUUID()
