// Device sections of real QEMU streams, each with its bytes and its entry in the stream's description.

import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { MemoryReader } from '../../src/wire/reader.js'
import type { SectionIntroduction } from '../../src/wire/stream.js'
import { decodeSectionHeader, SECTION } from '../../src/wire/stream.js'
import { locateStreamEnd } from '../../src/wire/stream-end.js'
import { VIRTIO_MEM_EARLY_SUFFIX } from '../../src/wire/virtio-mem.js'
import { sectionPayloadSize, type Vmdesc, type VmdescDevice, walkDeviceSections } from '../../src/wire/vmdesc.js'
import { listCaptures, loadCapture } from '../support/captures.js'

export interface Section {
  /** Where it was found, for messages. */
  from: string
  header: SectionIntroduction
  /** The whole section: header, payload, footer. */
  bytes: Uint8Array
  entry: VmdescDevice
}

// This module runs as dist/test/vmstate/sections.js; the fixtures are not compiled.
const ROOT = new URL('../../../test/fixtures/vmstate/', import.meta.url)

/** The end of a stream from a guest with two serial ports, from the first FULL section on. */
export function serialTail(version: '7.2.22' | '10.0.2'): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(new URL(`q${version}-serial.bin.gz`, ROOT))))
}

/** The sections in the end of a stream, which begins with the first FULL section. */
export function sectionsOf(from: string, tail: Uint8Array): { sections: Section[]; vmdesc: Vmdesc } {
  const { vmdesc } = locateStreamEnd(tail)
  if (vmdesc === undefined) throw new Error(`${from} has no description`)
  const sections = walkDeviceSections(tail, vmdesc).map(({ headerOffset, offset, size, ...header }) => ({
    from,
    header,
    bytes: tail.slice(headerOffset, offset + size + 5),
    entry: vmdesc.devices.find(({ name, instance_id }) => name === header.idstr && instance_id === header.instanceId)!,
  }))
  return { sections, vmdesc }
}

/** Every device section of every capture that has a description, and of the streams with serial ports. */
export function allSections(): Section[] {
  const sections: Section[] = []
  for (const name of listCaptures()) {
    const { meta, main } = loadCapture(name)
    if (meta.stream === undefined || meta.stream.vmdesc_bytes === undefined || !hasDescription(main)) continue
    const found = sectionsOf(name, main.subarray(meta.stream.device_state_range[0]))
    sections.push(...found.sections, ...earlySections(name, main, found.vmdesc))
  }
  for (const version of ['7.2.22', '10.0.2'] as const) {
    sections.push(...sectionsOf(`q${version}-serial`, serialTail(version)).sections)
  }
  return sections
}

function hasDescription(main: Uint8Array): boolean {
  return Buffer.from(main.buffer, main.byteOffset, main.length).includes('"page_size"')
}

/** Sections of before RAM: found by name, since nothing says where they are. */
function earlySections(from: string, main: Uint8Array, vmdesc: Vmdesc): Section[] {
  return vmdesc.devices
    .filter(({ name }) => name.endsWith(VIRTIO_MEM_EARLY_SUFFIX))
    .map((entry) => {
      const at = Buffer.from(main.buffer, main.byteOffset, main.length).indexOf(entry.name) - 6
      const reader = new MemoryReader(main.subarray(at))
      const { type, ...header } = decodeSectionHeader(reader)
      if (type !== SECTION.full || !('idstr' in header)) throw new Error(`${from}: no early section at ${at}`)
      return { from, header, bytes: main.slice(at, at + reader.position + sectionPayloadSize(entry) + 5), entry }
    })
}
