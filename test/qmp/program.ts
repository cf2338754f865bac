// A program under a QMP server, for tests: memory that is migrated, and a word for whether it runs.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MigrationDestination, MigrationSource, QEMU_DEFAULTS, QmpServer, RamBlock } from '../../src/index.js'
import { QmpLine } from './dialogue.js'

export interface ProgramOptions {
  side: 'source' | 'destination'
  /** Whether it runs, and can be stopped. */
  running?: boolean
  size?: number
}

export const PROGRAM_SIZE = 16 * 2 ** 20

/** One side with its server, on a socket of its own in `folder`. */
export class QmpProgram {
  readonly server: QmpServer
  readonly block: RamBlock
  readonly migration: MigrationSource | MigrationDestination
  readonly path: string
  readonly heard: string[] = []
  #quit = false

  constructor(folder: string, { side, running = false, size = PROGRAM_SIZE }: ProgramOptions) {
    this.path = join(folder, `${side}.sock`)
    this.block = RamBlock.allocate({ idstr: 'ram', size })
    const options = { ram: [this.block], parameters: { ...QEMU_DEFAULTS } }
    const hooks = running
      ? { stop: () => void this.heard.push('stop'), resume: () => void this.heard.push('resume') }
      : {}
    const quit = (): void => {
      this.#quit = true
    }
    if (side === 'source') {
      this.block.bytes().fill(7)
      const source = new MigrationSource(options)
      this.migration = source
      this.server = new QmpServer({ source, ...hooks, quit })
    } else {
      const destination = new MigrationDestination(options)
      this.migration = destination
      this.server = new QmpServer({ destination, quit })
    }
  }

  get hasQuit(): boolean {
    return this.#quit
  }

  async connect(): Promise<QmpLine> {
    return await QmpLine.connect(this.path)
  }

  async listen(): Promise<this> {
    await this.server.listen(`unix:${this.path}`)
    return this
  }

  async close(): Promise<void> {
    await this.server.close()
    await this.migration.close()
  }
}

export function temporaryFolder(t: { teardown(fn: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-qmp-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
