// Receives a running QEMU, or anything that speaks its protocol, into a snapshot file.

import { type ReceiveOptions, Receiver } from '../migration/destination.js'
import { removePartial } from './target.js'

export interface ReceiveSnapshotOptions extends ReceiveOptions {
  /** Refuses another machine type. */
  machineType?: string
}

/**
 * A destination that keeps what it receives in a file, which QEMU 9.0 and later loads as it is. Until everything came
 * the file is named `<path>.partial`.
 */
export class SnapshotReceiver extends Receiver {
  readonly #path: string

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT */
  constructor(path: string, options: ReceiveSnapshotOptions = {}) {
    const { machineType, ...rest } = options
    super(rest, { kind: 'snapshot', path, machineType })
    this.#path = path
  }

  protected override tidyUp(): void {
    removePartial(this.#path)
  }
}
