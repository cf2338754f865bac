// A guest in memory: received once, and sent to other QEMUs as often as wanted, without a file.

import { MultifdError } from '../errors.js'
import type { Logger } from '../log.js'
import { Receiver } from '../migration/destination.js'
import type { GuestImage } from '../migration/memory-target.js'
import type { MigrationParameters } from '../migration/parameters.js'
import { MigrationSource } from '../migration/source.js'
import { RamBlock } from '../ram/block.js'
import type { ReceiveSnapshotOptions } from './receive.js'
import { extrasOf, given } from './stream.js'

export interface SendGuestOptions {
  parameters?: Partial<MigrationParameters>
  /** The guest's uuid; default: the one it came with. */
  uuid?: string
  logger?: Logger
}

/** What {@link GuestReceiver} received. Its memory lasts as long as this object. */
export class Guest {
  readonly machineType: string
  readonly uuid: string | undefined
  /**
   * Names of the blocks of which nothing came, where the source left shared memory out (`ignoreShared`): {@link ram} has them
   * as it was given for them, or empty, and they are not sent on.
   */
  readonly shared: readonly string[]
  /** Its RAM blocks: to look at, or to change before the guest goes on elsewhere. */
  readonly ram: readonly RamBlock[]
  readonly #image: GuestImage

  /** @param given blocks that the guest was received into, which stay the caller's to close */
  constructor(image: GuestImage, given: readonly RamBlock[] = []) {
    this.#image = image
    this.machineType = image.configuration.machineType
    this.uuid = image.configuration.uuid ?? image.uuid
    this.shared = image.ignoredShared?.blocks ?? []
    this.ram = image.blocks.map((handle) => given.find(({ idstr }) => idstr === handle.idstr) ?? RamBlock.from(handle))
  }

  /**
   * A source that migrates the guest to a QEMU of the same machine type, memory and devices. Any number of them may run at
   * once, and each may migrate again.
   *
   * @throws MultifdError ERR_MULTIFD_ARGUMENT
   */
  source(options: SendGuestOptions = {}): MigrationSource {
    const { parameters, logger, uuid = this.uuid } = options
    const { ram, machineType } = this
    const sourceOptions = { ram: [...ram], machineType, ...given({ parameters, uuid, logger }) }
    return new MigrationSource(sourceOptions, extrasOf(this.#image))
  }
}

export interface ReceiveGuestOptions extends Omit<ReceiveSnapshotOptions, 'offset'> {
  /**
   * Memory to receive into, by the names of the guest's blocks: of a guest that is needed no more, or a file's where a
   * block has more than 4 GiB. What it holds is overwritten, unless the guest leaves it out as shared. Other blocks get memory of their own.
   */
  ram?: RamBlock[]
}

/** A destination that keeps a QEMU's guest in this process's memory. */
export class GuestReceiver extends Receiver {
  #guest: Guest | undefined
  readonly #given: readonly RamBlock[]

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT */
  constructor(options: ReceiveGuestOptions = {}) {
    const { machineType, ram = [], ...rest } = options
    const blocks = ram.map(({ handle }) => handle)
    super(rest, { kind: 'memory', machineType, blocks }, { ram, prealloc: false, devices: undefined })
    this.#given = ram
  }

  /**
   * What came, once {@link Receiver.completed} has resolved.
   *
   * @throws MultifdError ERR_MULTIFD_STATE before
   */
  get guest(): Guest {
    if (!this.image) throw new MultifdError('ERR_MULTIFD_STATE', 'no guest has come yet')
    this.#guest ??= new Guest(this.image, this.#given)
    return this.#guest
  }
}
