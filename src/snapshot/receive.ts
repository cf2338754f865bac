// Receives a running QEMU, or anything that speaks its protocol, into a snapshot file.

import { MultifdError } from '../errors.js'
import { formatUri, type MigrationUri } from '../io/uri.js'
import { type ReceiveOptions, Receiver } from '../migration/destination.js'
import { inodeOf, isSameFile } from '../os/file.js'
import { partialPath, removePartial, tryPlace } from './target.js'

export interface ReceiveSnapshotOptions extends ReceiveOptions {
  /** Refuses another machine type. */
  machineType?: string
  /** Where in the file the snapshot begins, bytes. What an existing file has before it is kept. */
  offset?: number
}

/**
 * A destination that keeps what it receives in a file, which QEMU 9.0 and later loads as it is. Until everything came
 * the file is named `<path>.partial`.
 */
export class SnapshotReceiver extends Receiver {
  readonly #path: string

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT */
  constructor(path: string, options: ReceiveSnapshotOptions = {}) {
    const { machineType, offset = 0, ...rest } = options
    checkOffset(offset)
    super(rest, { kind: 'snapshot', path, machineType, offset })
    this.#path = path
  }

  protected override checkTarget(from: MigrationUri): void {
    checkInput(from, partialPath(this.#path))
    tryPlace(this.#path)
  }

  protected override tidyUp(): void {
    removePartial(this.#path)
  }
}

// What is written begins with an empty file.
function checkInput(from: MigrationUri, partial: string): void {
  if (from.transport !== 'file' || !isSameFile(inodeOf(from.path), inodeOf(partial))) return
  const message = `${formatUri(from)} is ${partial}, which the snapshot is written to: give one of them another name`
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
}

function checkOffset(offset: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0) return
  throw new MultifdError(
    'ERR_MULTIFD_ARGUMENT',
    `the snapshot's offset is ${offset}: it must be a whole number of bytes`,
  )
}
