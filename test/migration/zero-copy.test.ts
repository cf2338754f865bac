// Zero-copy sends through a whole migration: the figures, the flush at the barrier, and what they are refused with.
//
// A receiver that does not read delays the completions: what it has no room for waits on our side as the pages
// themselves. (On a loopback, and on a veth, the kernel copies at the receiver's end, so each send counts as copied.)

import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { FaultPoints, MigrationDestination, type MigrationParameters, MigrationSource } from '../../src/index.js'
import { checkZeroCopy, zeroCopySends } from '../../src/migration/zero-copy.js'
import { INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { limited, limitedMissing } from '../os/limited.js'
import {
  allocate,
  checksums,
  fillNoise,
  HEADER_SIZE,
  leavesNothing,
  misplaced,
  openDescriptors,
  PAGE,
  PER_PACKET,
  rejection,
  stampAll,
  tells,
  Wire,
  Writer,
} from '../support/peers/index.js'

const PACKET = PER_PACKET * PAGE
const [older, newer] = [1, 2] as const
const needsLimits = { skip: limitedMissing() ?? false }

t.test('every send counts once, as the kernel tells of it', async (t) => {
  const before = openDescriptors()
  const shapes = [{ idstr: 'heap', size: 4 * PACKET }]
  const [ours, theirs] = [allocate(shapes), allocate(shapes)]
  ours.forEach(fillNoise)
  const parameters: Partial<MigrationParameters> = { multifdChannels: 2, zeroCopySend: true }
  const destination = new MigrationDestination({ ram: theirs })
  const source = new MigrationSource({ ram: ours, parameters })
  const sent = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  t.strictSame(checksums(theirs), checksums(ours))
  t.equal(sent.ram.dirtySyncMissedZeroCopy, 4, 'four packets, four sends, all of them copied by the loopback')
  const copying = new MigrationSource({ ram: ours })
  const without = await copying.migrate(await destination.listen('tcp:127.0.0.1:0'))
  t.equal(without.ram.dirtySyncMissedZeroCopy, 0, 'without it there is nothing to miss')
  t.equal(without.ram.transferred, sent.ram.transferred, 'the same bytes on the wire')
  await leavesNothing(t, before)
})

t.test('pages of small blocks that change all the time arrive as their last, none in the wrong place', async (t) => {
  const shapes = Array.from({ length: 24 }, (_, block) => ({ idstr: `block-${block}`, size: (2 + (block % 5)) * PAGE }))
  const [ours, theirs] = [allocate(shapes), allocate(shapes)]
  stampAll(ours)
  const parameters = { multifdChannels: 4, zeroCopySend: true, downtimeLimit: 0, maxBandwidth: 20e6 }
  const destination = new MigrationDestination({ ram: theirs, parameters: { multifdChannels: 4 } })
  const source = new MigrationSource({ ram: ours, parameters })
  const writer = await Writer.start(ours)
  let passes = 0
  source.on('pass', () => {
    if (++passes === 10) void writer.stop()
  })
  await source.migrate(await destination.listen('tcp:127.0.0.1:0'), { stop: () => writer.stop() })
  await destination.completed
  t.ok(writer.changes > 0, `${passes} passes, ${writer.changes} changes`)
  t.strictSame(misplaced(ours, theirs), [])
})

/**
 * One channel, one packet in the first pass, to a peer that does not read the channel. Its last page is changed by the
 * program once the pass's barrier is behind, which is when the program is stopped.
 *
 * @returns whether the barrier held while nobody read, and what the first and the second pass had of the page
 */
async function raceForPage(t: Test, faults: FaultPoints): Promise<{ held: boolean; first: number; second: number }> {
  const arrived: Socket[] = []
  const server = createServer({ pauseOnConnect: true }, (socket) => arrived.push(socket))
  t.teardown(() => {
    for (const socket of arrived) socket.destroy()
    server.close()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address() as { port: number }

  const [heap] = allocate([{ idstr: 'heap', size: PACKET }])
  heap!.bytes().fill(older)
  const contested = PACKET - PAGE
  const parameters = { multifdChannels: 1, zeroCopySend: true, returnPath: false }
  const source = new MigrationSource({ ram: [heap!], parameters, faults })
  let behind = false
  const stop = (): void => {
    behind = true
    heap!.bytes(contested, PAGE).fill(newer)
    heap!.markDirty(contested, PAGE)
  }
  const migrated = source.migrate(`tcp:127.0.0.1:${address.port}`, { stop })
  while (arrived.length < 2) await delay(5)
  new Wire(arrived[0]!).socket.resume()
  for (let look = 0; look < 50 && !behind; look++) await delay(20)
  const held = !behind

  const parts: Buffer[] = []
  arrived[1]!.on('data', (part: Buffer) => parts.push(part)).resume()
  t.equal((await migrated).status, 'completed')
  await once(arrived[1]!, 'close')
  const bytes = Buffer.concat(parts)
  // The set-up's SYNC, the first pass and its SYNC, the second pass and its SYNC.
  const one = INITIAL_PACKET_SIZE + HEADER_SIZE + HEADER_SIZE
  const two = one + PACKET + HEADER_SIZE + HEADER_SIZE
  t.equal(bytes.length, two + PAGE + HEADER_SIZE, 'both passes are there, whole')
  return { held, first: pageAt(t, bytes, one + contested), second: pageAt(t, bytes, two) }
}

function pageAt(t: Test, bytes: Buffer, at: number): number {
  const page = bytes.subarray(at, at + PAGE)
  t.ok(
    page.every((byte) => byte === page[0]),
    'the page is one copy or the other',
  )
  return page[0]!
}

t.test('no barrier passes before the kernel is through with the pages: each pass has its own copy', async (t) => {
  const { held, first, second } = await raceForPage(t, new FaultPoints([]))
  t.equal(held, true, 'SYNC was written long ago, and the barrier waits for completions')
  t.equal(first, older, 'what the page was in the first pass')
  t.equal(second, newer)
})

t.test('without the flush the barrier passes, and the first pass has a page of the second', async (t) => {
  const { held, first, second } = await raceForPage(t, new FaultPoints(['send-without-flush']))
  t.equal(held, false, 'SYNC is written, and nobody waits for the kernel')
  t.equal(first, newer, 'the page changed under the kernel: the test above shows what it says')
  t.equal(second, newer)
})

t.test('completions that never come fail the migration, and name the channel', async (t) => {
  const before = openDescriptors()
  const arrived: Socket[] = []
  const server = createServer({ pauseOnConnect: true }, (socket) => arrived.push(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const [heap] = allocate([{ idstr: 'heap', size: PACKET }])
  heap!.bytes().fill(older)
  const parameters = { multifdChannels: 1, zeroCopySend: true, returnPath: false, stallTimeoutMs: 300 }
  const source = new MigrationSource({ ram: [heap!], parameters })
  const error = await rejection(source.migrate(`tcp:127.0.0.1:${port}`))
  tells(t, error, { code: 'ERR_MULTIFD_TIMEOUT', says: /channel 0: / })
  for (const socket of arrived) socket.destroy()
  server.close()
  await once(server, 'close')
  await leavesNothing(t, before)
})

const asked = { zeroCopySend: true, multifd: true, multifdChannels: 2, multifdCompression: 'none' }
const tcp = { transport: 'tcp' } as const

t.test('what it does not go together with is refused, saying why', async (t) => {
  const refused = [
    { with: { multifd: false }, says: /switch multifd on/ },
    { with: { multifdCompression: 'zstd' }, says: /multifdCompression is zstd/ },
    { with: { tls: { dir: '/etc/pki/qemu' } }, says: /TLS is on/ },
  ]
  for (const { with: other, says } of refused) {
    const error = thrown(() => checkZeroCopy({ ...asked, ...other }))
    tells(t, error, { code: 'ERR_MULTIFD_ARGUMENT', says })
    t.equal(
      thrown(() => checkZeroCopy({ ...asked, ...other, zeroCopySend: false })),
      undefined,
    )
  }
  const ram = allocate([{ idstr: 'heap', size: PAGE }])
  const alone = thrown(() => new MigrationSource({ ram, parameters: { zeroCopySend: true, multifd: false } }))
  tells(t, alone, { code: 'ERR_MULTIFD_ARGUMENT', says: /switch multifd on/ })
  const source = new MigrationSource({ ram, parameters: { zeroCopySend: true } })
  const overUnix = await rejection(source.migrate('unix:/nowhere'))
  tells(t, overUnix, { code: 'ERR_MULTIFD_UNSUPPORTED', says: /for tcp, not for unix:/ })
  tells(
    t,
    thrown(() => zeroCopySends(asked, { transport: 'fd' }, 2 ** 30)),
    {
      code: 'ERR_MULTIFD_UNSUPPORTED',
      says: /not for fd:/,
    },
  )
})

t.test('how much may be under way follows from the locked-memory limit', async (t) => {
  const each = PACKET + 2 * PAGE
  t.equal(zeroCopySends({ ...asked, zeroCopySend: false }, { transport: 'unix' }, 0), undefined)
  t.equal(zeroCopySends(asked, tcp, Number.POSITIVE_INFINITY), Number.POSITIVE_INFINITY)
  t.equal(zeroCopySends(asked, tcp, 8 * 1024 ** 2), 7)
  t.equal(zeroCopySends(asked, tcp, 4 * each), 2)
  tells(
    t,
    thrown(() => zeroCopySends(asked, tcp, 4 * each - 1)),
    {
      code: 'ERR_MULTIFD_UNSUPPORTED',
      says: new RegExp(`RLIMIT_MEMLOCK.* is ${4 * each - 1} bytes, and 2 channels need ${4 * each}$`),
    },
  )
})

t.test('a process under the limit is refused, or keeps within it', needsLimits, async (t) => {
  const script = fileURLToPath(new URL('./zero-copy-limited.js', import.meta.url))
  const refused = JSON.parse(limited(65536, script).stdout)
  t.match(refused, { code: 'ERR_MULTIFD_UNSUPPORTED', message: /RLIMIT_MEMLOCK/ })
  const enough = limited(4 * (PACKET + 2 * PAGE), script)
  t.match(JSON.parse(enough.stdout), { status: 'completed', same: true }, enough.stderr)
})

function thrown(what: () => unknown): unknown {
  try {
    what()
  } catch (error) {
    return error
  }
  return undefined
}
