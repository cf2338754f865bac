// Receives a running QEMU, or anything that speaks its protocol, into a snapshot file.

import { MultifdError } from '../errors.js'
import { parseUri } from '../io/uri.js'
import { type ReceiveOptions, Receiver } from '../migration/destination.js'
import { inodeOf, isSameFile } from '../os/file.js'
import { checkPlace, partialPath, removePartial } from './target.js'

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

  /** As {@link Receiver.listen}, and @throws MultifdError ERR_MULTIFD_FILE where the file can not be. */
  override async listen(uri: string, options: { signal?: AbortSignal } = {}): Promise<string> {
    checkPlace(this.#path)
    checkInput(uri, partialPath(this.#path))
    return await super.listen(uri, options)
  }

  protected override tidyUp(): void {
    removePartial(this.#path)
  }
}

// What is written begins with an empty file.
function checkInput(text: string, partial: string): void {
  const uri = parseUri(text)
  if (uri.transport !== 'file' || !isSameFile(inodeOf(uri.path), inodeOf(partial))) return
  const message = `${text} is ${partial}, which the snapshot is written to: give one of them another name`
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', message)
}

function checkOffset(offset: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0) return
  throw new MultifdError(
    'ERR_MULTIFD_ARGUMENT',
    `the snapshot's offset is ${offset}: it must be a whole number of bytes`,
  )
}
