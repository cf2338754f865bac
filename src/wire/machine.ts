// What a machine type's version says about the protocol's dialect. Nothing of it is on the wire.
//
//   machine      barrier      zero pages    SWITCHOVER_START   close_notify on channels   SWITCHOVER_ACK
//   <= 8.0       per section  main channel  no                 not demanded               always
//   8.1, 8.2     per round    main channel  no                 not demanded               always
//   9.0 - 9.2    per round    packets       no                 not demanded               always
//   10.0 - 11.0  per round    packets       yes                demanded                   always
//   >= 11.1      per round    packets       yes                demanded                   for devices that want it
//
// Source: QEMU hw/core/machine.c, the compat properties of device `migration`.

/** A versioned machine type's name, taken apart. */
export interface MachineType {
  /** Such as `pc-i440fx`. */
  family: string
  major: number
  minor: number
}

/** How a peer with this machine type expects to be spoken to. */
export interface Dialect {
  /** The barrier's mark on the main channel: every EOS of a RAM section, or a FLUSH word once a dirty round. */
  flush: 'per-section' | 'per-round'
  /** Where zero pages go by default: records on the main channel, or the packets of the channels. */
  zeroPages: 'legacy' | 'multifd'
  /** Whether the source sends SWITCHOVER_START; QEMU before 10.0 refuses it. */
  switchoverStart: boolean
  /** Whether the destination takes a channel without TLS close_notify for cut off. */
  tlsCleanTermination: boolean
  /**
   * With the capability switchover-ack: whether every destination says SWITCHOVER_ACK, and every source waits for it, or
   * only those with a device that wants it.
   */
  switchoverAck: 'always' | 'where wanted'
  /** The oldest QEMU that has this machine type, such as `9.1`. */
  minimumQemu?: string
}

const VERSIONED = /^(.+)-(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?$/

/**
 * Takes a name such as `pc-i440fx-7.2` or `pc-q35-2.10.1` apart; undefined when it has no version of QEMU's.
 * Distributions' own versions (`pc-q35-rhel9.4.0`) are no versions of QEMU's.
 */
export function parseMachineType(name: string): MachineType | undefined {
  const [, family, major, minor] = VERSIONED.exec(name) ?? []
  if (family === undefined) return undefined
  return { family, major: Number(major), minor: Number(minor) }
}

/**
 * The dialect of a machine type. A name without a version (`none`, `microvm`, our own) gets the newest, save that
 * SWITCHOVER_START is not sent: a peer that does not know it fails, and none needs it.
 */
export function dialectOf(machineType: string): Dialect {
  const machine = parseMachineType(machineType)
  if (machine === undefined) {
    return {
      flush: 'per-round',
      zeroPages: 'multifd',
      switchoverStart: false,
      tlsCleanTermination: true,
      switchoverAck: 'where wanted',
    }
  }
  const { major, minor } = machine
  const atLeast = (wantedMajor: number, wantedMinor: number) =>
    major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  return {
    flush: atLeast(8, 1) ? 'per-round' : 'per-section',
    zeroPages: atLeast(9, 0) ? 'multifd' : 'legacy',
    switchoverStart: atLeast(10, 0),
    tlsCleanTermination: atLeast(10, 0),
    switchoverAck: atLeast(11, 1) ? 'where wanted' : 'always',
    minimumQemu: `${major}.${minor}`,
  }
}
