// What is kept beside a snapshot, as <file>.meta: it may be lost without harm. msgpack of one object.

import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { Packr } from 'msgpackr'
import { unpackValue } from '../vmstate/msgpack.js'

export interface Sidecar {
  /** The guest's, as its channels named it: a QEMU that has it loads the snapshot over multifd only with it. */
  uuid?: string
}

const SIZE_MAX = 65536
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export function sidecarPath(path: string): string {
  return `${path}.meta`
}

/** Writes a sidecar; `path` is the sidecar's own. */
export function writeSidecar(path: string, sidecar: Sidecar): void {
  writeFileSync(path, new Packr({ useRecords: false }).pack(sidecar))
}

/** A snapshot's sidecar, or an empty one when it is missing or makes no sense. */
export function readSidecar(path: string): Sidecar {
  try {
    if (statSync(sidecarPath(path)).size > SIZE_MAX) return {}
    const value = unpackValue(readFileSync(sidecarPath(path))) as Sidecar | null
    return typeof value?.uuid === 'string' && UUID.test(value.uuid) ? { uuid: value.uuid } : {}
  } catch {
    return {}
  }
}
