// Descriptors instead of addresses: a socket's, and a file's.

import { openSync } from 'node:fs'
import { closeDescriptor, openPair } from '../../../src/os/socket.js'
import type { Ground } from '../ground.js'
import {
  atRest,
  bothEnd,
  goesOn,
  letGo,
  receiverFor,
  sameMemory,
  someGuest,
  sourceFor,
  startGuest,
} from '../passage.js'
import { type Result, type Row, works } from '../table.js'

/** What a QEMU writes to: one of ours, which it gets over its QMP socket, and keeps. */
async function giveDescriptor(ground: Ground, descriptor: number) {
  const original = await startGuest(ground)
  await original.qmp.command('getfd', { fdname: 'there' }, descriptor)
  closeDescriptor(descriptor)
  return original
}

async function fromSocket(ground: Ground): Promise<Result> {
  const [ours, theirs] = openPair()
  const original = await giveDescriptor(ground, theirs)
  const receiver = receiverFor(ground, {})
  await receiver.listen(`fd:${ours}`)
  await letGo(original, 'fd:there', {})
  await bothEnd(receiver.completed, original.waitMigration())
  await atRest(original)
  await sameMemory(receiver.guest, original)
  return works('several passes over a socket that QEMU was given; the memory is the same')
}

async function toSocket(ground: Ground): Promise<Result> {
  const guest = await someGuest(ground)
  const [ours, theirs] = openPair()
  const heir = await ground.start({ incoming: 'defer', descriptors: [theirs] })
  closeDescriptor(theirs)
  await heir.listen('fd:3')
  await bothEnd(sourceFor(ground, guest, {}).migrate(`fd:${ours}`), heir.waitMigration())
  await sameMemory(guest, heir)
  await goesOn(heir)
  return works('over a socket that QEMU inherited; the memory is the same, and the guest goes on')
}

async function fromFile(ground: Ground): Promise<Result> {
  const original = await giveDescriptor(ground, openSync(ground.path('stream'), 'w'))
  // A file has no way back.
  await original.migrate({ uri: 'fd:there', returnPath: false })
  await original.waitMigration()
  const receiver = receiverFor(ground, {})
  await receiver.listen(`fd:${openSync(ground.path('stream'), 'r')}`)
  await receiver.completed
  await sameMemory(receiver.guest, original)
  return works('a stream that QEMU wrote to a descriptor; the memory is the same')
}

async function toFile(ground: Ground): Promise<Result> {
  const guest = await someGuest(ground)
  const source = sourceFor(ground, guest, { ours: { returnPath: false } })
  await source.migrate(`fd:${openSync(ground.path('stream'), 'w')}`)
  const stream = openSync(ground.path('stream'), 'r')
  const heir = await ground.start({ incoming: 'defer', descriptors: [stream] })
  closeDescriptor(stream)
  await heir.listen('fd:3')
  await heir.waitMigration()
  await sameMemory(guest, heir)
  await goesOn(heir)
  return works(
    'a stream that we wrote to a descriptor, and QEMU inherits; the memory is the same, and the guest goes on',
  )
}

export const DESCRIPTORS: readonly Row[] = [
  {
    name: 'precopy/fd/tcp',
    runs: [
      { roles: ['D'], old: true, run: fromSocket },
      { roles: ['S'], old: true, run: toSocket },
    ],
  },
  {
    name: 'precopy/fd/file',
    runs: [
      { roles: ['D'], run: fromFile },
      { roles: ['S'], run: toFile },
    ],
  },
]
