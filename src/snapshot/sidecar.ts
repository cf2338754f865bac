// What is kept beside a snapshot, as <file>.meta: it may be lost without harm. msgpack of one object.

import { readFileSync, writeFileSync } from 'node:fs'
import { Packr, Unpackr } from 'msgpackr'

export interface Sidecar {
  /** The guest's, as its channels named it: a QEMU that has it loads the snapshot over multifd only with it. */
  uuid?: string
}

const SIZE_MAX = 65536

export function sidecarPath(path: string): string {
  return `${path}.meta`
}

export function writeSidecar(path: string, sidecar: Sidecar): void {
  writeFileSync(sidecarPath(path), new Packr({ useRecords: false }).pack(sidecar))
}

/** The sidecar, or an empty one when it is missing or makes no sense. */
export function readSidecar(path: string): Sidecar {
  try {
    const bytes = readFileSync(sidecarPath(path))
    if (bytes.length > SIZE_MAX) return {}
    const value = new Unpackr({ useRecords: false }).unpack(bytes) as Sidecar
    return typeof value?.uuid === 'string' ? { uuid: value.uuid } : {}
  } catch {
    return {}
  }
}
