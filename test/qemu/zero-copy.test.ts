// A snapshot sent to real QEMUs without copying: the same bytes on the wire, the same guest at the other end.

import { join } from 'node:path'
import t from 'tap'
import { guestProgress, memoryDifference, qemuVersions, requireQemu, startQemu } from '../support/qemu/index.js'
import { Cli } from './scenario.js'

t.setTimeout(180_000)

for (const version of qemuVersions) {
  t.test(`QEMU ${version} → us → QEMU ${version}, zero-copy, 2 channels`, async (t) => {
    if (!requireQemu(t, version)) return
    const hardware = { version, machine: `pc-i440fx-${version}` }
    const source = await startQemu({ ...hardware, guest: 'patterned' })
    t.teardown(() => source.close())
    const snapshot = join(source.dir, 'guest.snapshot')
    const receive = new Cli('receive', 'tcp:127.0.0.1:0', '--output', snapshot, '--channels', '2')
    t.teardown(() => receive.kill())
    await source.migrate({ uri: await receive.listening(), multifdChannels: 2 })
    await source.waitMigration()
    await receive.succeed()

    const destination = await startQemu({ ...hardware, incoming: 'defer' })
    t.teardown(() => destination.close())
    const uri = await destination.listen('tcp:127.0.0.1:0', { multifdChannels: 2 })
    const send = new Cli('send', snapshot, uri, '--channels', '2', '--zero-copy', '--json')
    t.teardown(() => send.kill())
    const [{ stdout }] = await Promise.all([send.succeed(), destination.waitMigration()])
    const { status, ram } = JSON.parse(stdout)
    t.equal(status, 'completed')
    t.ok(ram['dirty-sync-missed-zero-copy'] > 0, `${ram['dirty-sync-missed-zero-copy']} sends, copied by the loopback`)
    t.equal(memoryDifference(await source.memory(), await destination.memory()), undefined, 'its memory is what it was')
    await destination.cont()
    t.equal((await guestProgress(destination)).length, 3, 'its program goes on')
  })
}
