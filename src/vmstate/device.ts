// What a program registers: a state with its description, or a pair of functions whose value travels as msgpack.

import type { Description } from './description.js'

/** What both kinds of device may say. */
export interface DeviceOptions {
  /** The section's name; default: the description's. */
  idstr?: string
  /** Tells devices of one idstr apart; default: the lowest that is free, in the order of registration. */
  instanceId?: number
  /** The source may leave its section out. A description with `needed` may be left out anyway. Default false. */
  optional?: boolean
  /**
   * Destination, with the parameter `switchoverAck`: called before pages come, and done once this side is ready for the
   * device to move; the program runs on over there until then. Fails the migration when it throws.
   */
  approveSwitchover?(): void | Promise<void>
}

/** A device with a description. {@link device} makes one, and sees that state and description fit. */
export interface DescribedDevice extends DeviceOptions {
  readonly description: Description<never>
  readonly state: object
}

/** A device without a schema. */
export interface PackedDevice extends DeviceOptions {
  readonly idstr: string
  /** What is written. */
  readonly version: number
  /** The oldest that `load` understands; default `version`, nothing older. */
  readonly minimumVersion?: number
  /** Gives the state as plain values: objects, arrays, texts, numbers, bigints of 64 bits, booleans, bytes, dates. */
  save(): unknown
  /** Takes such a value. It was checked to be plain values, and nothing else. */
  load(value: unknown, version: number): void
  /** Most bytes of the packed value, on either side; default 16 MiB. */
  readonly maxBytes?: number
  /** As {@link Description.priority}. */
  readonly priority?: number
  /** As {@link Description.early}. */
  readonly early?: boolean
  /** As {@link Description.unmigratable}. */
  readonly unmigratable?: string
}

export type Device = DescribedDevice | PackedDevice

/** A state with its description. Its type must be what the description is for. */
export function device<S extends object>(
  description: Description<S>,
  state: NoInfer<S>,
  options: DeviceOptions = {},
): DescribedDevice {
  return { ...options, description: description as unknown as Description<never>, state }
}
