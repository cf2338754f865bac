// The same bytes over as many sockets, without a protocol: what the machine can do at all with these system calls.

import type { Pairing, Session } from '../pairing.js'
import { NodePairing } from './node.js'

export function bareSockets(session: Session): Pairing {
  const entries = { source: 'bare-source', destination: 'bare-destination' }
  return new NodePairing(session, { name: 'bare', label: 'bare sockets' }, entries)
}
