// The recordings of real migrations in test/fixtures/captures, unpacked.

import { readdirSync, readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'

/** What capture.json says of one RAM block. */
export interface CaptureBlock {
  name: string
  used_length: number
  /** Of the content that the destination must end with; null where it was not obtained. */
  sha256: string | null
  truth: string | null
}

/** Counts of one channel's packets. */
export interface PacketCounts {
  pk: number
  normal: number
  zero: number
  sync: number
  'empty flags=0'?: number
  'empty flags=1'?: number
}

/** What an independent parser found in the main stream. */
export interface CaptureStream {
  ram_records: Record<string, number>
  sections: string[]
  multifd_packets: Record<string, PacketCounts>
  device_full_sections: number
  device_state_range: [number, number]
  vmdesc_bytes: number
  early_sections: { name: string; addr: number; region_size: number; block_size: number; node: number; size: number }[]
}

/** capture.json, as far as tests look at it. */
export interface CaptureMeta {
  name: string
  description: string
  qemu_version: string
  machine_type: string
  uuid: string
  target_page_size: number
  capabilities: string[]
  parameters: Record<string, unknown>
  effective_zero_page_detection: string
  flush_mode: string
  files: { role: string; id?: number; file: string; bytes: number }[]
  ram_blocks: CaptureBlock[]
  stream?: CaptureStream
}

/** One recording. `main` is empty for a mapped-ram file. */
export interface Capture {
  meta: CaptureMeta
  main: Uint8Array
  /** By channel id. */
  channels: Uint8Array[]
  /** What the destination sent on the main connection. */
  returnPath?: Uint8Array
  /** The postcopy preempt channel. */
  preempt?: Uint8Array
  /** The whole file. */
  mappedRam?: Uint8Array
}

// This module runs as dist/test/support/captures.js; the fixtures are not compiled.
const ROOT = new URL('../../../test/fixtures/captures/', import.meta.url)

/** The names of all recordings. */
export function listCaptures(): string[] {
  return readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
}

/** Reads one recording into memory. */
export function loadCapture(name: string): Capture {
  const folder = new URL(`${name}/`, ROOT)
  const meta = JSON.parse(readFileSync(new URL('capture.json', folder), 'utf8')) as CaptureMeta
  const capture: Capture = { meta, main: new Uint8Array(0), channels: [] }
  for (const { role, id, file, bytes } of meta.files) {
    // capture.json names some files without the .gz that all of them have here.
    const packed = readFileSync(new URL(file.endsWith('.gz') ? file : `${file}.gz`, folder))
    const content = new Uint8Array(gunzipSync(packed))
    if (content.length !== bytes) throw new Error(`${name}/${file} has ${content.length} bytes, expected ${bytes}`)
    if (role === 'main') capture.main = content
    else if (role === 'multifd channel') capture.channels[id ?? 0] = content
    else if (role === 'postcopy preempt channel') capture.preempt = content
    else if (role === 'file') capture.mappedRam = content
    else if (role.includes('return path')) capture.returnPath = content
    else throw new Error(`${name}: a file of unknown role '${role}'`)
  }
  return capture
}
