// The destination's coordinator rehearses: it receives a small stream of its own before the first source comes.
//
// Code that runs for the first time is read, compiled and looked up piece by piece. At a migration's beginning and at its
// end, where the source's program stands still, that takes milliseconds that nobody has. A destination waits anyway.

import { MessageChannel } from 'node:worker_threads'
import { DescriptorChannel } from '../io/descriptor-channel.js'
import { StreamWriter } from '../io/stream-writer.js'
import { closeDescriptor, openPair, shutdownWrite } from '../os/socket.js'
import { MigrationShm } from '../shm/migration-shm.js'
import { COMMAND, encodeCommand } from '../wire/command.js'
import { pagesPerPacket } from '../wire/multifd-packet.js'
import {
  encodeRamRecord,
  encodeRamSetup,
  encodeRamWord,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_SECTION_VERSION,
} from '../wire/ram.js'
import {
  encodeConfiguration,
  encodeEof,
  encodeFooter,
  encodeSectionHeader,
  encodeSectionPart,
  encodeStreamHeader,
  encodeVmdescHeader,
  SECTION,
} from '../wire/stream.js'
import type { CoordinatorTask } from './coordinator.js'

const PAGE_SIZE = 4096
const PAGES = 64
const RAM = { idstr: 'rehearsal', usedLength: PAGES * PAGE_SIZE }
const RAM_SECTION = 1
const DEVICES = 24
const DEVICE_BYTES = 64
const ROOM = 16384

/**
 * Calls `receive` with what a coordinator is started with, and a connected descriptor that has all of a migration's
 * stream, with a return path, without multifd and without TLS.
 */
export function rehearse(task: CoordinatorTask, receive: (task: CoordinatorTask, fd: number) => void): void {
  const [ours, theirs] = openPair()
  const { port1, port2 } = new MessageChannel()
  const { tls: _, ...plain } = task
  const shm = MigrationShm.create({ channels: 0, pagesPerPacket: pagesPerPacket(PAGE_SIZE), dirtyWords: 1 })
  try {
    const writer = new StreamWriter(new DescriptorChannel(theirs, 'main', () => {}))
    writer.putBytes(stream())
    writer.flush()
    shutdownWrite(theirs)
    const parameters = { ...task.parameters, ignoreShared: false }
    receive({ ...plain, parameters, shm: shm.handle, ports: [], toProgram: port2 }, ours)
  } finally {
    closeDescriptor(theirs)
    port1.close()
  }
}

function stream(): Uint8Array {
  const bytes = new Uint8Array(ROOM)
  const view = new DataView(bytes.buffer)
  let at = encodeConfiguration(view, encodeStreamHeader(view, 0), { machineType: 'rehearsal' })
  at = encodeCommand(view, at, COMMAND.openReturnPath)
  const ram = { sectionId: RAM_SECTION, idstr: RAM_IDSTR, instanceId: 0, versionId: RAM_SECTION_VERSION }
  at = encodeSectionHeader(view, at, SECTION.start, ram)
  at = encodeRamSetup(view, at, [RAM])
  at = encodeFooter(view, encodeRamWord(view, at, 0, RAM_FLAG.eos), RAM_SECTION)
  at = encodeSectionPart(view, at, SECTION.end, RAM_SECTION)
  for (let page = 0; page < PAGES; page++) {
    at = encodeRamRecord(view, at, page * PAGE_SIZE, RAM_FLAG.zero, page === 0 ? RAM.idstr : undefined)
    view.setUint8(at++, 0)
  }
  at = encodeFooter(view, encodeRamWord(view, at, 0, RAM_FLAG.eos), RAM_SECTION)
  for (let i = 0; i < DEVICES; i++) {
    const device = { sectionId: RAM_SECTION + 1 + i, idstr: deviceName(i), instanceId: 0, versionId: 1 }
    at = encodeSectionHeader(view, at, SECTION.full, device) + DEVICE_BYTES
    at = encodeFooter(view, at, device.sectionId)
  }
  at = encodeEof(view, at)
  const description = new TextEncoder().encode(JSON.stringify(vmdesc()))
  at = encodeVmdescHeader(view, at, description.length)
  bytes.set(description, at)
  return bytes.subarray(0, at + description.length)
}

function vmdesc(): object {
  const fields = [{ name: 'data', type: 'buffer', size: DEVICE_BYTES }]
  const devices = Array.from({ length: DEVICES }, (_, i) => {
    return { name: deviceName(i), instance_id: 0, vmsd_name: deviceName(i), version: 1, fields }
  })
  return { page_size: PAGE_SIZE, devices }
}

function deviceName(index: number): string {
  return `rehearsal/${index}`
}
