// The beginning of a source's channel: its handshake, and at once its initial packet.

import type { Channel } from '../io/channel.js'
import { shakeHands } from '../io/connection.js'
import { IoVector } from '../io/iovec.js'
import { PinnedBuffer } from '../os/memory.js'
import type { TlsContextHandle } from '../tls/context.js'
import { parseUuid } from '../wire/bytes.js'
import { encodeInitialPacket, INITIAL_PACKET_SIZE } from '../wire/multifd-initial.js'

export interface Introduction {
  /** The guest's, as text. */
  uuid: string | undefined
  tls?: { context: TlsContextHandle; timeoutMs: number }
}

/**
 * Tells the destination which channel it is. QEMU's destinations wait for that in their main loop once the handshake is
 * over, and take no other channel meanwhile.
 */
export function introduce(channel: Channel, { uuid, tls }: Introduction): void {
  if (tls) shakeHands(channel, tls.context, tls.timeoutMs)
  const packet = new PinnedBuffer(INITIAL_PACKET_SIZE)
  const id = channel.name as number
  encodeInitialPacket(packet.view, 0, { uuid: uuid === undefined ? undefined : parseUuid(uuid), id })
  const vector = new IoVector(1)
  vector.push({ address: packet.address, size: INITIAL_PACKET_SIZE }, 0, INITIAL_PACKET_SIZE)
  channel.writeFull(vector)
}
