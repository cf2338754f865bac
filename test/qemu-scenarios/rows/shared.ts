// Memory that both sides map stays where it is: only what else there is of a guest moves.

import assert from 'node:assert/strict'
import type { Ground } from '../ground.js'
import { MEMORY_MIB } from '../ground.js'
import { atRest, bothEnd, goesOn, receiverFor, sourceFor, startGuest, startHeir, type Way } from '../passage.js'
import { type Result, type Row, rejection, works } from '../table.js'

const CAPABILITY = 'x-ignore-shared'
/** More than what else a guest has, and much less than its memory. */
const LITTLE = 2 ** 20

function shared(ground: Ground): Way {
  const path = ground.path('memory')
  // Named as QEMU names its own.
  const backend = `memory-backend-file,id=pc.ram,size=${MEMORY_MIB}M,mem-path=${path},share=on`
  const machine = `pc-i440fx-${ground.version},memory-backend=pc.ram`
  return {
    hardware: { machine, extraArgs: ['-object', backend] },
    qemu: { capabilities: [CAPABILITY] },
    ours: { ignoreShared: true },
  }
}

/** Through us, with parallel channels or without, and to a destination of ours that expects all of its memory. */
async function stays(ground: Ground): Promise<Result> {
  const original = await startGuest(ground, shared(ground))
  const unaware = receiverFor(ground, {})
  await original.migrate({ uri: await unaware.listen('tcp:127.0.0.1:0'), capabilities: [CAPABILITY] })
  const { code } = await rejection(unaware.completed)
  assert.equal(code, 'ERR_MULTIFD_MACHINE')
  await original.waitMigration('failed')
  await original.waitStatus('running')

  const way = shared(ground)
  const receiver = receiverFor(ground, way)
  await original.migrate({ uri: await receiver.listen('tcp:127.0.0.1:0'), capabilities: [CAPABILITY] })
  const [{ ram: received }] = await bothEnd(receiver.completed, original.waitMigration())
  await atRest(original)
  const { guest } = receiver
  assert.deepEqual(guest.shared, ['pc.ram'])
  assert.ok(received.transferred < LITTLE, `${received.transferred} bytes came`)
  const memory = await original.memory()

  const { heir, uri } = await startHeir(ground, way)
  const [{ ram: sent }] = await bothEnd(sourceFor(ground, guest, way).migrate(uri), heir.waitMigration())
  assert.ok(sent.transferred < LITTLE, `${sent.transferred} bytes went`)
  assert.ok((await heir.memory()).equals(memory), 'the memory is the same')
  await goesOn(heir)
  return works(
    'shared RAM is listed and stays where it is, a few hundred KiB move, and the guest goes on; `ERR_MULTIFD_MACHINE` where only one side leaves it',
  )
}

export const SHARED: Row = { name: 'ignore-shared', runs: [{ roles: ['S', 'D'], old: true, run: stays }] }
