import { flowSuite } from './conformance/flows'
import { onEveryBackend } from './support/backends'

onEveryBackend('flows', flowSuite)
