import { webhookSuite } from './conformance/webhooks'
import { onEveryBackend } from './support/backends'

onEveryBackend('webhooks', webhookSuite)
