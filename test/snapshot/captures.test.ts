// Recorded migrations of real QEMUs, replayed over real sockets into the real receiver.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, openSync, readSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import type { MultifdError } from '../../src/errors.js'
import { readSnapshot, type SnapshotBlock } from '../../src/snapshot/file.js'
import { SnapshotReceiver } from '../../src/snapshot/receive.js'
import { type Capture, listCaptures, loadCapture } from '../support/captures.js'

/** Captures of what is not supported, and the words of the refusal. */
const REFUSED: Record<string, RegExp> = {
  compress: /COMPRESS_PAGE/,
  postcopy: /command POSTCOPY_\w+ of the source is not supported/,
  'config-subsections': /capability 'x-ignore-shared' is on at the source, and off here/,
}

function refusalOf(name: string): RegExp | undefined {
  return Object.entries(REFUSED).find(([part]) => name.includes(part))?.[1]
}

/** A page's bytes as the snapshot has them: its data, or zeros where the bitmap says so. */
function blockHash(path: string, { size, pagesOffset, pageSize, populated }: SnapshotBlock): string {
  const fd = openSync(path, 'r')
  const hash = createHash('sha256')
  const page = Buffer.alloc(pageSize)
  for (let i = 0; i < size / pageSize; i++) {
    page.fill(0)
    if (populated.has(i)) readSync(fd, page, 0, pageSize, pagesOffset + i * pageSize)
    hash.update(page)
  }
  return hash.digest('hex')
}

/** Plays a source that opened no return path: sends everything and closes. */
async function replay(uri: string, { main, channels }: Capture): Promise<void> {
  const port = Number(uri.split(':').at(-1))
  await Promise.all(
    [main, ...channels].map(async (bytes) => {
      const socket = connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.resume()
      socket.end(bytes)
      await once(socket, 'close')
    }),
  )
}

for (const name of listCaptures()) {
  const capture = loadCapture(name)
  if (capture.mappedRam) continue
  const refusal = refusalOf(name)
  // A return path is written in the recording, and nobody reads our answers: the source half-closes as if it had.
  t.test(`${name} is ${refusal ? 'refused by name' : 'received with the recorded content'}`, async (t) => {
    const path = join(t.testdir(), 'guest.ram')
    const receiver = new SnapshotReceiver(path, {
      parameters: { multifd: capture.channels.length > 0, multifdChannels: Math.max(1, capture.channels.length) },
    })
    t.teardown(() => receiver.close())
    const uri = await receiver.listen('tcp:127.0.0.1:0')
    const [outcome] = await Promise.allSettled([receiver.completed, replay(uri, capture)])
    if (refusal) {
      t.equal(outcome.status, 'rejected')
      t.match((outcome as PromiseRejectedResult).reason, { message: refusal })
      t.notOk(existsSync(path), 'no file under the final name')
      return
    }
    t.equal(outcome.status, 'fulfilled', String((outcome as { reason?: MultifdError }).reason?.message))
    const snapshot = readSnapshot(path)
    t.equal(snapshot.configuration.machineType, capture.meta.machine_type)
    t.same(
      snapshot.blocks.map(({ idstr, size }) => ({ idstr, size })),
      capture.meta.ram_blocks.map((block) => ({ idstr: block.name, size: block.used_length })),
    )
    for (const block of snapshot.blocks) {
      const recorded = capture.meta.ram_blocks.find((other) => other.name === block.idstr)
      if (recorded?.sha256) t.equal(blockHash(path, block), recorded.sha256, block.idstr)
    }
    if (capture.meta.stream) t.equal(snapshot.sections?.length ?? 0, sectionsOf(capture))
  })
}

// Without a description the sections of a file can not be told apart.
function sectionsOf({ meta }: Capture): number {
  return meta.stream!.vmdesc_bytes > 0 ? meta.stream!.device_full_sections : 0
}
