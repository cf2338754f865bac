// The library in one process to the library in another.

import type { Pairing, Session } from '../pairing.js'
import { NodePairing } from './node.js'

export function usToUs(session: Session): Pairing {
  const entries = { source: 'us-source', destination: 'us-destination' }
  return new NodePairing(session, { name: 'us-us', label: 'multifd → multifd' }, entries)
}
