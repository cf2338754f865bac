// Where the recorded dialogues are.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { QemuVersion } from '../support/qemu/index.js'
import type { Recording } from './dialogue.js'

/** One file a version of QEMU, by the dialogues' names. */
export function recordingPath(version: QemuVersion): string {
  return fileURLToPath(new URL(`../../../test/fixtures/qmp/qemu-${version}.json`, import.meta.url))
}

export function readRecordings(version: QemuVersion): Record<string, Recording> {
  return JSON.parse(readFileSync(recordingPath(version), 'utf8'))
}
