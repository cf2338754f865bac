// The devices of a program on their way through one migration, in the thread that they live in.

import type { RamBlock } from '../ram/block.js'
import { BlockGuard } from '../ram/block-guard.js'
import { preallocate } from '../ram/prealloc.js'
import type { FaultPoints } from '../shm/fault-points.js'
import type { Device } from '../vmstate/device.js'
import { DeviceSet } from '../vmstate/device-set.js'
import { DeviceStateLoader } from '../vmstate/loader.js'
import { DeviceStateSaver } from '../vmstate/saver.js'
import { protocolError } from '../wire/bytes.js'
import { MemoryReader } from '../wire/reader.js'
import { decodeVmdescription, SECTION } from '../wire/stream.js'
import type { StreamExtras } from './source.js'
import { sparseDevices } from './sparse-device.js'

/** The RAM's section id; those of the devices follow it. */
const PROGRAM_RAM_SECTION = 0

/**
 * The devices of a program, sparse blocks first.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT as {@link DeviceSet}
 */
export function programDevices(ram: readonly RamBlock[], devices: Iterable<Device> = []): DeviceSet {
  return new DeviceSet([...sparseDevices(ram), ...devices])
}

/** What a source says of its devices. */
export class ProgramSave {
  readonly #early: Uint8Array
  readonly #saver: DeviceStateSaver

  /** @throws MultifdError ERR_MULTIFD_DEVICE */
  constructor(devices: DeviceSet, pageSize: number) {
    this.#saver = new DeviceStateSaver(devices, { firstSectionId: PROGRAM_RAM_SECTION + 1, pageSize })
    this.#early = this.#saver.saveEarly()
  }

  /** What of the stream is known from the beginning. */
  get extras(): Omit<StreamExtras, 'deviceState'> {
    return {
      ramSectionId: PROGRAM_RAM_SECTION,
      beforeRam: this.#early,
      afterRam: new Uint8Array(),
      switchoverStart: false,
      validateUuid: false,
    }
  }

  /**
   * What follows the RAM's last section, to the end of the stream. The program stands still.
   *
   * @throws MultifdError ERR_MULTIFD_DEVICE
   */
  finish(): Uint8Array {
    const sections = this.#saver.saveFull()
    const end = this.#saver.streamEnd()
    const bytes = new Uint8Array(sections.length + end.length)
    bytes.set(sections)
    bytes.set(end, sections.length)
    return bytes
  }
}

/** What a destination does with its memory and devices. */
export class ProgramLoad {
  readonly #ram: readonly RamBlock[]
  readonly #prealloc: boolean
  readonly #loader: DeviceStateLoader
  readonly #abort = new AbortController()
  #guard: BlockGuard | undefined
  #preparing: Promise<void> | undefined
  #prepared = false

  constructor(ram: readonly RamBlock[], devices: DeviceSet, prealloc: boolean) {
    this.#ram = ram
    this.#prealloc = prealloc
    this.#loader = new DeviceStateLoader(devices)
  }

  /** Does it all once with nothing: code that runs for the first time is slow, and its end is the source's downtime. */
  static async rehearse(): Promise<void> {
    const none = new DeviceSet([])
    const load = new ProgramLoad([], none, false)
    await load.prepare(new Uint8Array())
    load.finish(new ProgramSave(none, 4096).finish())
    await load.release()
  }

  /**
   * Loads what came before the RAM set-up, and makes memory ready: plugged as at the source, and resident where that is
   * wanted. From here on the blocks stand still.
   *
   * @throws MultifdError what {@link DeviceStateLoader}, {@link BlockGuard} and {@link preallocate} throw
   */
  prepare(early: Uint8Array, faults?: FaultPoints): Promise<void> {
    this.#preparing = this.#prepare(early, faults)
    return this.#preparing
  }

  async #prepare(early: Uint8Array, faults: FaultPoints | undefined): Promise<void> {
    const reader = new MemoryReader(early)
    this.#loader.loadSections(reader, 'early')
    if (reader.remaining > 0) throw protocolError(`${reader.remaining} bytes before the RAM set-up are no section`)
    this.#loader.finish('early')
    this.#guard = new BlockGuard(this.#ram)
    if (this.#prealloc) await preallocate(this.#ram, { signal: this.#abort.signal, faults })
    this.#prepared = true
  }

  /**
   * Loads what came after the pages.
   *
   * @throws MultifdError as {@link DeviceStateLoader}; ERR_MULTIFD_STATE when adopted memory has grown
   */
  finish(deviceState: Uint8Array): void {
    this.#guard?.checkSame()
    const reader = new MemoryReader(deviceState)
    this.#loader.loadSections(reader, 'full')
    const byte = reader.u8()
    if (byte !== SECTION.eof) {
      throw protocolError(`section type 0x${byte.toString(16)} where device state goes on or ends`)
    }
    if (reader.remaining > 0) decodeVmdescription(reader)
    this.#loader.finish('full')
  }

  /** Leaves nobody at work on the program's memory. Idempotent. */
  async release(): Promise<void> {
    if (!this.#prepared) this.#abort.abort()
    await this.#preparing?.catch(() => {})
    this.#guard?.release()
    this.#guard = undefined
  }
}
