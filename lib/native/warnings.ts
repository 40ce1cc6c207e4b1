import { debug } from '../debug'
import { warnLimited } from '../warn'
import { bridge, onWake } from './bridge'

/** What native code reports: warnings through `process.emitWarning`, the rest with `NODE_DEBUG=nvent`. */
onWake('warnings', () => {
  const batch = bridge.takeWarnings()
  if (batch === null) return
  for (const [isWarning, code, message] of JSON.parse(batch) as Array<[boolean, string, string]>) {
    if (isWarning) warnLimited(code, message)
    else debug('%s', message)
  }
})
