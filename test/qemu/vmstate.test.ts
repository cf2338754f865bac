// Sections of a QEMU that is here, not of a recording: loaded by descriptions of ours, and written back byte for byte.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { qemuVersions, requireQemu, startQemu } from '../support/qemu/index.js'
import { sectionsOf } from '../vmstate/sections.js'
import { deviceFor, throughDevice } from '../vmstate/through-device.js'
import { toHex } from '../wire/helpers.js'

t.setTimeout(120_000)

for (const version of qemuVersions) {
  t.test(`timer, rtc, apic and serial ports of QEMU ${version}`, async (t) => {
    if (!requireQemu(t, version)) return
    const port = (id: string) => ['-chardev', `null,id=${id}`, '-device', `isa-serial,chardev=${id}`]
    const qemu = await startQemu({ version, extraArgs: [...port('a'), ...port('b')] })
    try {
      const path = join(qemu.dir, 'stream')
      await qemu.migrate({ uri: `exec:cat > ${path}` })
      await qemu.waitMigration()
      const stream = new Uint8Array(await readFile(path))
      // Device state begins with the timer's section.
      const { sections } = sectionsOf('QEMU', stream.subarray(Buffer.from(stream.buffer).indexOf('\x05timer') - 5))
      const known = sections.filter((section) => deviceFor(section, {}) !== undefined)
      t.strictSame(known.map(({ header }) => header.idstr).sort(), ['apic', 'mc146818rtc', 'serial', 'serial', 'timer'])
      for (const section of known) {
        const { bytes, vmdesc } = throughDevice(section)
        t.equal(toHex(bytes), toHex(section.bytes), section.header.idstr)
        t.equal(JSON.stringify(vmdesc.devices[0]), JSON.stringify(section.entry))
      }
    } finally {
      await qemu.close()
    }
  })
}
