import { triggerSuite } from './conformance/triggers'
import { onEveryBackend } from './support/backends'

onEveryBackend('triggers', triggerSuite)
