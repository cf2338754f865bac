// Saves the devices of a program as a stream's sections: early ones before RAM, all others at the end, and their description.
//
//   FULL section   header, payload, footer; see ../wire/stream.ts

import { argumentError } from '../wire/bytes.js'
import type { Configuration } from '../wire/stream.js'
import { encodeFooter, encodeSectionHeader, FOOTER_SIZE, SECTION, sectionHeaderSize } from '../wire/stream.js'
import type { VmdescDevice } from '../wire/vmdesc.js'
import { callHook, locateError, type SaveContext } from './context.js'
import { type DeviceSet, isSaved, nameOf, type RegisteredDevice } from './device-set.js'
import { PACKED_HEAD_SIZE, packValue } from './msgpack.js'
import { saveDescription } from './save.js'
import { VmdescWriter } from './vmdesc-writer.js'
import { ByteWriter } from './writer.js'

export interface SaveOptions {
  /** Of the first device; the others follow in stream order. It must leave out the ids of RAM and the like. */
  firstSectionId: number
  /** Bytes of a target page. */
  pageSize: number
  /** What the stream's configuration section says; it is described where it is given. */
  configuration?: Configuration
}

/** One migration's saving: made when the migration is set up, used once. */
export class DeviceStateSaver {
  readonly #set: DeviceSet
  readonly #firstSectionId: number
  readonly #vmdesc: VmdescWriter

  /** Throws ERR_MULTIFD_DEVICE, naming the device, when one of them can not be migrated. */
  constructor(set: DeviceSet, { firstSectionId, pageSize, configuration }: SaveOptions) {
    const last = firstSectionId + set.devices.length
    if (!Number.isInteger(firstSectionId) || firstSectionId < 0 || last > 0xffff_ffff) {
      throw argumentError(`section id is ${firstSectionId}, expected a whole number that leaves room for all devices`)
    }
    set.checkMigratable()
    this.#set = set
    this.#firstSectionId = firstSectionId
    this.#vmdesc = new VmdescWriter(pageSize, configuration)
  }

  /** The sections that go before RAM. Throws ERR_MULTIFD_DEVICE, with section and field in its message. */
  saveEarly(): Uint8Array {
    return this.#save(true)
  }

  /** The sections that go after RAM, once the program stands still. Throws as {@link saveEarly}. */
  saveFull(): Uint8Array {
    return this.#save(false)
  }

  /** The JSON that describes what was saved so far. */
  vmdesc(): Uint8Array {
    return this.#vmdesc.json()
  }

  /** What follows the last section: the mark that ends device state, and the description. */
  streamEnd(): Uint8Array {
    return this.#vmdesc.streamEnd()
  }

  #save(early: boolean): Uint8Array {
    const writer = new ByteWriter()
    this.#set.devices.forEach((device, i) => {
      if (device.early !== early) return
      const path: string[] = []
      try {
        if (isSaved(device)) this.#vmdesc.add(saveSection({ writer, path }, device, this.#firstSectionId + i))
      } catch (error) {
        throw locateError(error, `device ${nameOf(device)}`, path)
      }
    })
    return writer.written().slice()
  }
}

function saveSection(context: SaveContext, device: RegisteredDevice, sectionId: number): VmdescDevice {
  const { writer } = context
  const { idstr, instanceId, versionId } = device
  const header = { sectionId, idstr, instanceId, versionId }
  writer.encode(sectionHeaderSize(idstr), (view, at) => encodeSectionHeader(view, at, SECTION.full, header))
  const described = savePayload(context, device)
  writer.encode(FOOTER_SIZE, (view, at) => encodeFooter(view, at, sectionId))
  return { name: idstr, instance_id: instanceId, ...described }
}

function savePayload(context: SaveContext, { content }: RegisteredDevice): Omit<VmdescDevice, 'name' | 'instance_id'> {
  if ('description' in content) return saveDescription(context, content.description, content.state)
  const { packed, maxBytes } = content
  const bytes = packValue(
    callHook('save', () => packed.save()),
    maxBytes,
  )
  context.writer.u32(bytes.length)
  context.writer.bytes(bytes)
  // As QEMU describes a device that has no description.
  return { fields: [{ name: 'data', type: 'buffer', size: PACKED_HEAD_SIZE + bytes.length }] }
}
