// Shared blocks: both sides map the same memory, so its pages stay where they are, and everything else moves.

import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  RamBlock,
  SnapshotReceiver,
} from '../../src/index.js'

const SIZE = 8 * 2 ** 20
const PAGE = 4096

/** A block of the program's own, and one that two programs map. */
function memory(t: Test, path: string): { own: RamBlock; common: RamBlock } {
  const common = RamBlock.mapFile({ idstr: 'common', size: SIZE, path, shared: true })
  t.teardown(() => common.close())
  return { own: RamBlock.allocate({ idstr: 'own', size: SIZE }), common }
}

async function migrate(ram: [RamBlock[], RamBlock[]], parameters: Partial<MigrationParameters>) {
  await using destination = new MigrationDestination({ ram: ram[1], parameters })
  await using source = new MigrationSource({ ram: ram[0], parameters })
  const uri = await destination.listen('tcp:127.0.0.1:0')
  const [sent] = await Promise.all([source.migrate(uri), destination.completed])
  return sent
}

for (const parameters of [{ multifd: true }, { multifd: false }, { multifd: false, xbzrle: true }]) {
  t.test(`the pages of shared blocks stay, the others move: ${JSON.stringify(parameters)}`, async (t) => {
    const path = join(t.testdir(), 'common')
    const [here, there] = [memory(t, path), memory(t, path)]
    here.own.bytes().fill(0x11)
    here.common.bytes().fill(0x22)
    const ram: [RamBlock[], RamBlock[]] = [Object.values(here), Object.values(there)]
    const sent = await migrate(ram, { ...parameters, ignoreShared: true })
    t.equal(sent.ram.normal, SIZE / PAGE, 'the pages of one block')
    t.ok(Buffer.from(there.own.bytes()).equals(Buffer.alloc(SIZE, 0x11)))
    t.ok(Buffer.from(there.common.bytes()).equals(Buffer.alloc(SIZE, 0x22)))
    const whole = await migrate(ram, parameters)
    t.equal(whole.ram.normal, (2 * SIZE) / PAGE, 'without the parameter all of it moves')
  })
}

t.test('a program of which everything is shared moves without a page', async (t) => {
  const path = join(t.testdir(), 'common')
  for (const parameters of [{ multifd: true }, { multifd: false, xbzrle: true }]) {
    const ram: [RamBlock[], RamBlock[]] = [[memory(t, path).common], [memory(t, path).common]]
    const { ram: sent } = await migrate(ram, { ...parameters, ignoreShared: true })
    t.match(sent, { normal: 0, duplicate: 0, total: 0 })
  }
})

t.test('a block that is not shared on one side is missed there', async (t) => {
  const path = join(t.testdir(), 'common')
  const { common } = memory(t, path)
  const own = RamBlock.allocate({ idstr: 'common', size: SIZE })
  await t.rejects(migrate([[common], [own]], { ignoreShared: true }), { code: /ERR_MULTIFD_(BLOCK|REMOTE)/ })
})

t.test('both sides must want it', async (t) => {
  const path = join(t.testdir(), 'common')
  const [here, there] = [memory(t, path), memory(t, path)]
  for (const wanted of [true, false]) {
    await using destination = new MigrationDestination({
      ram: Object.values(there),
      parameters: { ignoreShared: !wanted },
    })
    await using source = new MigrationSource({ ram: Object.values(here), parameters: { ignoreShared: wanted } })
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const message = `capability 'x-ignore-shared' is ${wanted ? 'on' : 'off'} at the source, and ${wanted ? 'off' : 'on'} here (ignoreShared)`
    await Promise.all([
      t.rejects(destination.completed, { code: 'ERR_MULTIFD_MACHINE', message }),
      t.rejects(source.migrate(uri), { code: /ERR_MULTIFD_(REMOTE|CLOSED)/ }),
    ])
  }
})

t.test('a snapshot can not keep what stays elsewhere', async (t) => {
  const folder = t.testdir()
  const { common, own } = memory(t, join(folder, 'common'))
  await using receiver = new SnapshotReceiver(join(folder, 'snapshot'), { parameters: { ignoreShared: true } })
  await using source = new MigrationSource({ ram: [own, common], parameters: { ignoreShared: true } })
  const uri = await receiver.listen('tcp:127.0.0.1:0')
  await Promise.all([
    t.rejects(receiver.completed, { code: 'ERR_MULTIFD_UNSUPPORTED', message: /shared memory .* receive into memory/ }),
    t.rejects(source.migrate(uri), { code: /ERR_MULTIFD_(REMOTE|CLOSED)/ }),
  ])
})
