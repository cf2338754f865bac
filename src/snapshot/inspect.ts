// What a snapshot holds, told without loading it.

import { decodeEarlySections } from '../wire/early-sections.js'
import { dialectOf } from '../wire/machine.js'
import { readSnapshot, type Snapshot } from './file.js'
import { readSidecar } from './sidecar.js'

/** A RAM block; bytes. */
export interface InspectedBlock {
  idstr: string
  size: number
  /** Of the pages that have data; the others are zero. */
  populated: number
}

/** A device's section; `size` is its payload's, in bytes. */
export interface InspectedDevice {
  idstr: string
  instanceId: number
  versionId: number
  size: number
  /** Sent before the guest's memory. */
  early: boolean
}

export interface SnapshotInfo {
  path: string
  /** Bytes. */
  fileSize: number
  /** Bytes that the file takes on its disk. */
  allocated: number
  machineType: string
  /** Bytes of a target page. */
  pageSize: number
  /** Of the configuration section. */
  capabilities: string[]
  uuid?: string
  /** Where the uuid was found: in the file's own configuration, or in what is kept beside it. */
  uuidFrom?: 'configuration' | 'sidecar'
  /** The guest's run state when it was saved, as QEMU names it: `running`, `paused`, `prelaunch` … */
  runState?: string
  /** Whether the guest ran. Once loaded it goes on by itself, unless QEMU was started with -S. */
  running?: boolean
  /** The oldest QEMU that takes the snapshot, such as `9.0`. Absent where the machine type has no version. */
  minimumQemu: {
    /** `-incoming file:`. */
    file: string
    /** `multifd send`. */
    send?: string
  }
  ram: { size: number; populated: number; blocks: InspectedBlock[] }
  /** In stream order. Absent where the file does not describe them. */
  devices?: InspectedDevice[]
}

/** The first QEMU that has mapped-ram. */
const MAPPED_RAM_QEMU = '9.0'
const GLOBAL_STATE = 'globalstate'
const RUN_STATE_SIZE = 100

/**
 * Reads what a snapshot says of itself.
 *
 * @param options.offset where in the file it begins, bytes
 * @throws MultifdError as readSnapshot: ERR_MULTIFD_FILE, ERR_MULTIFD_SNAPSHOT, ERR_MULTIFD_UNSUPPORTED
 */
export function inspectSnapshot(path: string, { offset }: { offset?: number } = {}): SnapshotInfo {
  const snapshot = readSnapshot(path, offset)
  const { configuration, pageSize } = snapshot
  const { machineType, capabilities = [] } = configuration
  const blocks = snapshot.blocks.map(({ idstr, size, populated }) => {
    return { idstr, size, populated: populated.count() * pageSize }
  })
  const send = dialectOf(machineType).minimumQemu
  const runState = runStateOf(snapshot)
  const devices = devicesOf(snapshot)
  return {
    path,
    fileSize: snapshot.fileSize,
    allocated: snapshot.allocated,
    machineType,
    pageSize,
    capabilities,
    ...uuidOf(snapshot),
    ...(runState === undefined ? {} : { runState, running: runState === 'running' }),
    minimumQemu: { file: laterOf(MAPPED_RAM_QEMU, send), ...(send === undefined ? {} : { send }) },
    ram: { size: total(blocks, 'size'), populated: total(blocks, 'populated'), blocks },
    ...(devices === undefined ? {} : { devices }),
  }
}

function total(blocks: InspectedBlock[], what: 'size' | 'populated'): number {
  return blocks.reduce((sum, block) => sum + block[what], 0)
}

function uuidOf({ path, configuration }: Snapshot): Pick<SnapshotInfo, 'uuid' | 'uuidFrom'> {
  if (configuration.uuid !== undefined) return { uuid: configuration.uuid, uuidFrom: 'configuration' }
  const { uuid } = readSidecar(path)
  return uuid === undefined ? {} : { uuid, uuidFrom: 'sidecar' }
}

function laterOf(first: string, second: string | undefined): string {
  if (second === undefined) return first
  const [major = 0, minor = 0] = first.split('.').map(Number)
  const [otherMajor = 0, otherMinor = 0] = second.split('.').map(Number)
  return otherMajor > major || (otherMajor === major && otherMinor > minor) ? second : first
}

// be32 length, then 100 bytes with the name and zeros. From QEMU 8.2 on some of the zeros have a meaning of their own.
function runStateOf({ sections, deviceState }: Snapshot): string | undefined {
  const section = sections?.find(({ idstr }) => idstr === GLOBAL_STATE)
  if (!section || section.size < 4 + RUN_STATE_SIZE) return undefined
  const at = section.offset + 4
  const text = deviceState.subarray(at, at + RUN_STATE_SIZE)
  const end = text.indexOf(0)
  if (end <= 0) return undefined
  return new TextDecoder().decode(text.subarray(0, end))
}

function devicesOf({ sections, beforeRam, afterRam }: Snapshot): InspectedDevice[] | undefined {
  if (!sections) return undefined
  const late = sections.map(({ idstr, instanceId, versionId, size }) => {
    return { idstr, instanceId, versionId, size, early: false }
  })
  return [...earlyDevices(beforeRam), ...earlyDevices(afterRam), ...late]
}

function earlyDevices(bytes: Uint8Array): InspectedDevice[] {
  return decodeEarlySections(bytes).map(({ idstr, instanceId, versionId, size }) => {
    return { idstr, instanceId, versionId, size, early: true }
  })
}
