// The devices of one program: each with its idstr and instance, checked, in the order of the stream.

import { oneLine } from '../errors.js'
import { argumentError } from '../wire/bytes.js'
import { MAX_BUFFER_SIZE } from './buffers.js'
import { checkStructure } from './check.js'
import { deviceError } from './context.js'
import type { Description } from './description.js'
import type { DescribedDevice, Device, DeviceOptions, PackedDevice } from './device.js'
import { checkName } from './field.js'
import { isNeeded } from './save.js'

/** Most bytes of a packed value, unless its device says otherwise. */
const DEFAULT_MAX_PACKED = 16 * 1024 * 1024
/** 2^32 - 1 is QEMU's word for "any". */
const MAX_INSTANCE = 0xffff_fffe
const MAX_VERSION = 0xffff_ffff

/** A registered device: what its sections need, whichever kind it is. */
export interface RegisteredDevice {
  readonly idstr: string
  readonly instanceId: number
  readonly versionId: number
  readonly minimumVersionId: number
  readonly priority: number
  readonly early: boolean
  readonly unmigratable: string | undefined
  /** Whether the source may leave it out. */
  readonly optional: boolean
  /** See {@link DeviceOptions.approveSwitchover}. */
  readonly approveSwitchover: (() => void | Promise<void>) | undefined
  readonly content: DescribedContent | PackedContent
}

interface DescribedContent {
  readonly description: Description<never>
  readonly state: object
}

interface PackedContent {
  readonly packed: PackedDevice
  readonly maxBytes: number
}

/** A device's name in messages. */
export function nameOf({ idstr, instanceId }: { idstr: string; instanceId: number }): string {
  return `'${idstr}' ${instanceId}`
}

/**
 * Devices in stream order: higher priority first, then as registered.
 *
 * The constructor makes the structure check of every description. Throws ERR_MULTIFD_ARGUMENT: a description that is not
 * well-formed, two different descriptions of one name, two devices of one idstr and instance, a member that is none.
 */
export class DeviceSet {
  readonly devices: readonly RegisteredDevice[]

  constructor(devices: Iterable<Device>) {
    const registered: RegisteredDevice[] = []
    for (const device of devices) {
      const next = register(device, registered)
      checkAgainst(next, registered)
      registered.push(next)
    }
    // The sort is stable.
    this.devices = registered.sort((a, b) => b.priority - a.priority)
  }

  find(idstr: string, instanceId: number): RegisteredDevice | undefined {
    return this.devices.find((device) => device.idstr === idstr && device.instanceId === instanceId)
  }

  /** Whether one of them has a say in when the switchover is. */
  get wantApproval(): boolean {
    return this.devices.some(({ approveSwitchover }) => approveSwitchover !== undefined)
  }

  /** Resolves once all of them agree to the switchover. Rejects with ERR_MULTIFD_DEVICE, naming the device. */
  async approveSwitchover(): Promise<void> {
    const approve = async ({ approveSwitchover, idstr, instanceId }: RegisteredDevice): Promise<void> => {
      try {
        await approveSwitchover?.()
      } catch (error) {
        const text = `device ${nameOf({ idstr, instanceId })}: approveSwitchover failed: ${oneLine(error)}`
        throw deviceError(text, error)
      }
    }
    await Promise.all(this.devices.map(approve))
  }

  /** Throws ERR_MULTIFD_DEVICE, naming the device, when one of them can not be migrated. */
  checkMigratable(): void {
    for (const { idstr, instanceId, unmigratable } of this.devices) {
      if (unmigratable === undefined) continue
      throw deviceError(`device ${nameOf({ idstr, instanceId })} can not be migrated: ${unmigratable}`)
    }
  }
}

/** Whether a device has a section in this state. */
export function isSaved({ content }: RegisteredDevice): boolean {
  return 'packed' in content || isNeeded(content.description, content.state)
}

function register(device: Device, others: readonly RegisteredDevice[]): RegisteredDevice {
  if (typeof device !== 'object' || device === null) throw argumentError(`a device is ${String(device)}`)
  const facts = 'description' in device ? describedFacts(device) : packedFacts(device)
  const { idstr } = facts
  checkName(idstr, "a device's idstr")
  const taken = others.filter((other) => other.idstr === idstr).map((other) => other.instanceId)
  let instanceId = device.instanceId ?? 0
  if (device.instanceId === undefined) while (taken.includes(instanceId)) instanceId++
  if (!Number.isInteger(instanceId) || instanceId < 0 || instanceId > MAX_INSTANCE) {
    throw argumentError(`instance id of device '${idstr}' is ${instanceId}, expected 0..2^32 - 2`)
  }
  if (taken.includes(instanceId)) throw argumentError(`two devices are ${nameOf({ idstr, instanceId })}`)
  return Object.freeze({ ...facts, instanceId, approveSwitchover: approvalOf(device) })
}

// A device may be an object of a class, whose function wants its object.
function approvalOf(device: DeviceOptions): RegisteredDevice['approveSwitchover'] {
  if (device.approveSwitchover === undefined) return undefined
  if (typeof device.approveSwitchover !== 'function') throw argumentError('approveSwitchover is no function')
  return () => device.approveSwitchover!()
}

function describedFacts({ description, state, idstr, optional }: DescribedDevice) {
  checkStructure(description)
  if (typeof state !== 'object' || state === null) {
    throw argumentError(`device '${idstr ?? description.name}' has no state`)
  }
  const { name, versionId, minimumVersionId, priority, early, unmigratable, needed } = description
  return {
    idstr: idstr ?? name,
    versionId,
    minimumVersionId,
    priority,
    early,
    unmigratable,
    optional: optional ?? needed !== undefined,
    content: { description, state },
  }
}

function packedFacts(packed: PackedDevice) {
  const { idstr, version, minimumVersion = version, maxBytes = DEFAULT_MAX_PACKED, priority = 0 } = packed
  const { early = false, unmigratable, optional = false } = packed
  for (const number of [version, minimumVersion]) {
    if (!Number.isInteger(number) || number < 0 || number > MAX_VERSION) {
      throw argumentError(`version of device '${idstr}' is ${number}, expected 0..2^32 - 1`)
    }
  }
  if (minimumVersion > version) {
    throw argumentError(`device '${idstr}' reads versions from ${minimumVersion} on and writes ${version}`)
  }
  if (!Number.isInteger(maxBytes) || maxBytes < 1 || maxBytes > MAX_BUFFER_SIZE) {
    throw argumentError(`maxBytes of device '${idstr}' is ${maxBytes}, expected 1..${MAX_BUFFER_SIZE}`)
  }
  if (!Number.isFinite(priority)) throw argumentError(`priority of device '${idstr}' is ${priority}, expected a number`)
  if (typeof packed.save !== 'function' || typeof packed.load !== 'function') {
    throw argumentError(`device '${idstr}' has no description, and not both save and load`)
  }
  return {
    idstr,
    versionId: version,
    minimumVersionId: minimumVersion,
    priority,
    early,
    unmigratable,
    optional,
    content: { packed, maxBytes },
  }
}

/** Names stand for one description each, and one section's devices are of one kind. */
function checkAgainst(device: RegisteredDevice, others: readonly RegisteredDevice[]): void {
  if (!('description' in device.content)) return
  const { description } = device.content
  for (const { content } of others) {
    if (!('description' in content) || content.description === description) continue
    if (content.description.name === description.name) {
      throw argumentError(`two descriptions are named '${description.name}'`)
    }
  }
}
