// Whether a migration may send without copying, and how much of it may be under way.

import { MultifdError } from '../errors.js'
import type { MigrationUri } from '../io/uri.js'
import { HOST_PAGE_SIZE } from '../os/memory.js'
import { lockedMemoryLimit } from '../os/zero-copy.js'

// What the kernel locks for one send: a packet's pages, and the two pages at its ends.
const LOCKED_BYTES = 524288 + 2 * HOST_PAGE_SIZE
// One send is filled while the other is under way.
const SENDS_MIN = 2

interface ZeroCopyParameters {
  zeroCopySend: boolean
  multifd: boolean
  multifdChannels: number
  multifdCompression: string
  tls?: unknown
}

/** @throws MultifdError ERR_MULTIFD_ARGUMENT for parameters that zero-copy sends do not go together with */
export function checkZeroCopy(parameters: ZeroCopyParameters): void {
  const { zeroCopySend, multifd, multifdCompression, tls } = parameters
  if (!zeroCopySend) return
  if (!multifd) throw refused('ARGUMENT', 'the channels do it: switch multifd on')
  if (multifdCompression !== 'none') {
    throw refused(
      'ARGUMENT',
      `compressed pages are no longer where they lie: multifdCompression is ${multifdCompression}`,
    )
  }
  if (tls !== undefined) throw refused('ARGUMENT', 'encrypted pages are no longer where they lie: TLS is on')
}

/**
 * How many sends without copying each channel may have under way, from what may be locked; undefined without
 * `zeroCopySend`.
 *
 * @param limit bytes of memory that may be locked
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED for a transport that lacks it, or a limit that is too low
 */
export function zeroCopySends(
  { zeroCopySend, multifdChannels }: ZeroCopyParameters,
  { transport }: Pick<MigrationUri, 'transport'>,
  limit = lockedMemoryLimit(),
): number | undefined {
  if (!zeroCopySend) return undefined
  if (transport !== 'tcp') throw refused('UNSUPPORTED', `the kernel has it for tcp, not for ${transport}: connections`)
  const sends = Math.floor(limit / multifdChannels / LOCKED_BYTES)
  if (sends >= SENDS_MIN) return sends
  const needed = multifdChannels * SENDS_MIN * LOCKED_BYTES
  throw refused(
    'UNSUPPORTED',
    `the locked-memory limit (RLIMIT_MEMLOCK, ulimit -l) is ${limit} bytes, and ${multifdChannels} ` +
      `${multifdChannels === 1 ? 'channel needs' : 'channels need'} ${needed}`,
  )
}

function refused(code: 'ARGUMENT' | 'UNSUPPORTED', why: string): MultifdError {
  return new MultifdError(`ERR_MULTIFD_${code}`, `zero-copy send is not possible: ${why}`)
}
