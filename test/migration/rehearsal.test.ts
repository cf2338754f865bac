// What a destination does while it waits: a migration of its own, of which nobody sees anything.

import t from 'tap'
import { MigrationDestination, MigrationSource, RamBlock } from '../../src/index.js'

const SIZE = 2 ** 20

for (const ignoreShared of [false, true]) {
  t.test(`a destination rehearses, and nobody hears of it but the clock, ignoreShared: ${ignoreShared}`, async (t) => {
    const block = RamBlock.allocate({ idstr: 'heap', size: SIZE })
    const warnings: unknown[] = []
    const logger = { warn: (_: object, text: string) => warnings.push(text), info() {}, debug() {}, error() {} }
    await using destination = new MigrationDestination({
      ram: [block],
      parameters: { ignoreShared },
      logger: logger as never,
    })
    const heard: unknown[] = []
    destination.on('status', (status) => heard.push(status))
    const uri = await destination.listen('tcp:127.0.0.1:0')
    const deadline = Date.now() + 20_000
    while (destination.threads().length < 3 && Date.now() < deadline) await new Promise((r) => setTimeout(r, 10))
    // Its threads are up, and their rehearsals over.
    await new Promise((resolve) => setTimeout(resolve, 500))
    t.same(warnings, [], 'it went well')
    t.notOk(heard.includes('active'))
    const { ram } = destination.statistics()!
    t.match(ram, { transferred: 0, normalBytes: 0, duplicate: 0 })

    const original = RamBlock.allocate({ idstr: 'heap', size: SIZE })
    original.bytes().fill(7)
    await using source = new MigrationSource({ ram: [original], parameters: { ignoreShared } })
    await source.migrate(uri)
    await destination.completed
    t.ok(Buffer.from(block.bytes()).equals(Buffer.alloc(SIZE, 7)))
    t.same(warnings, [])
  })
}
