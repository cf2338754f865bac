// What one run stands on: a QEMU's version, a folder, and everything that is to be closed at its end.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Qemu, type QemuOptions, type QemuVersion, startQemu } from '../support/qemu/index.js'

interface Closable {
  close(): unknown
}

export const MEMORY_MIB = 32

export class Ground {
  readonly version: QemuVersion
  readonly folder: string
  readonly #owned: Closable[] = []

  private constructor(version: QemuVersion, folder: string) {
    this.version = version
    this.folder = folder
  }

  static async use<T>(version: QemuVersion, work: (ground: Ground) => Promise<T>): Promise<T> {
    const ground = new Ground(version, await mkdtemp(join(tmpdir(), 'multifd-scenario-')))
    try {
      return await work(ground)
    } finally {
      for (const thing of ground.#owned.reverse()) await thing.close()
      await rm(ground.folder, { recursive: true, force: true })
    }
  }

  own<T extends Closable>(thing: T): T {
    this.#owned.push(thing)
    return thing
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  async start(options: Partial<QemuOptions> = {}): Promise<Qemu> {
    return this.own(await startQemu({ version: this.version, memoryMiB: MEMORY_MIB, ...options }))
  }
}
