// The memory of a stressed program, at either side, and the record of what was written to it.

import { join } from 'node:path'
import { RamBlock } from '../../src/index.js'
import { makeSharedMemory } from '../../src/wasm/kernel.js'
import { wasmProgram } from '../support/wasm.js'
import { PageContents } from './contents.js'
import type { BlockShape } from './draw.js'

const PAGE = 4096
const WASM_PAGE = 65536
const MOST_TOLD = 8

export type Side = 'source' | 'destination'

/**
 * Makes the blocks of a side.
 *
 * @param folder for the files that are mapped
 */
export function makeBlocks(shapes: readonly BlockShape[], side: Side, folder: string): RamBlock[] {
  return shapes.map((shape) => {
    const block = makeBlock(shape, side === 'source' ? shape.kind : shape.kindThere, join(folder, side))
    if (side === 'source') {
      for (const granule of shape.populated ?? []) {
        block.discardManager!.populate(granule * shape.granuleSize!, shape.granuleSize!)
      }
    } else if (shape.kind !== 'sparse') {
      // What was there before gives way, also to zero pages.
      for (let page = 0; page < block.pages; page += 2) block.bytes(page * PAGE, PAGE).fill(0x55)
    }
    return block
  })
}

function makeBlock(shape: BlockShape, kind: BlockShape['kind'], path: string): RamBlock {
  const { idstr, size, dirtyLog, granuleSize } = shape
  const sparse = granuleSize === undefined ? {} : { discardManager: { granuleSize } }
  if (kind === 'file') return RamBlock.mapFile({ idstr, size, dirtyLog, path: `${path}-${idstr}` })
  if (kind === 'allocated' || kind === 'sparse') return RamBlock.allocate({ idstr, size, dirtyLog, ...sparse })
  const memory = kind === 'adopted' ? wasmProgram(size / WASM_PAGE).memory : makeSharedMemory(size)
  return RamBlock.adopt({ idstr, memory, dirtyLog })
}

/** The versions of every page, in a file: the record outlives the process of the writer, whatever becomes of it. */
export class WriteRecord {
  readonly block: RamBlock
  readonly #words: Int32Array
  readonly #firsts: number[] = []

  constructor(shapes: readonly BlockShape[], block: RamBlock) {
    this.block = block
    let first = 0
    for (const { size } of shapes) {
      this.#firsts.push(first)
      first += size / PAGE
    }
    const bytes = block.bytes()
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  }

  /** The record of a folder: made by whoever opens it first. */
  static open(shapes: readonly BlockShape[], folder: string): WriteRecord {
    const pages = shapes.reduce((sum, { size }) => sum + size / PAGE, 0)
    const size = Math.ceil((pages * 4) / PAGE) * PAGE
    return new WriteRecord(shapes, RamBlock.mapFile({ idstr: 'record', path: join(folder, 'record'), size }))
  }

  version(block: number, page: number): number {
    return this.#words[this.#firsts[block]! + page]!
  }

  set(block: number, page: number, version: number): void {
    this.#words[this.#firsts[block]! + page] = version
  }

  close(): void {
    this.block.close()
  }
}

/** The pages that the program may write to, as [block, page]. */
export function writablePages(shapes: readonly BlockShape[]): [block: number, page: number][] {
  return shapes.flatMap(({ size, granuleSize, populated }, block) => {
    const all = Array.from({ length: size / PAGE }, (_, page) => page)
    const has = granuleSize && new Set(populated)
    const wanted = has ? all.filter((page) => has.has(Math.floor((page * PAGE) / granuleSize))) : all
    return wanted.map((page): [number, number] => [block, page])
  })
}

/** Which pages are not what the record says, a line each; the first few of them. */
export function differences(blocks: readonly RamBlock[], shapes: readonly BlockShape[], record: WriteRecord): string[] {
  const wrong: string[] = []
  let more = 0
  const contents = shapes.map(({ content }, block) => new PageContents(block, content))
  for (const [block, page] of writablePages(shapes)) {
    const version = record.version(block, page)
    const expected = contents[block]!.page(page, version)
    const found = blocks[block]!.bytes(page * PAGE, PAGE)
    if (Buffer.compare(found, expected) === 0) continue
    if (wrong.length === MOST_TOLD) more++
    else wrong.push(`${blocks[block]!.idstr} page ${page}: ${describe(contents[block]!, found, page, version)}`)
  }
  for (const [at, { idstr, granuleSize, populated }] of shapes.entries()) {
    const manager = blocks[at]!.discardManager
    if (!manager) continue
    const bytes = populated!.length * granuleSize!
    if (
      manager.populatedBytes !== bytes ||
      populated!.some((granule) => !manager.isPopulated(granule * granuleSize!, 1))
    )
      wrong.push(`${idstr}: other granules are populated than there should be`)
  }
  if (more > 0) wrong.push(`and ${more} more`)
  return wrong
}

function describe(contents: PageContents, found: Uint8Array, page: number, version: number): string {
  for (let older = version - 1; older >= 0 && older > version - 64; older--) {
    if (Buffer.compare(found, contents.page(page, older)) === 0) return `has version ${older}, not ${version}`
  }
  const expected = contents.page(page, version)
  const first = found.findIndex((byte, at) => byte !== expected[at])
  const count = found.reduce((sum, byte, at) => sum + (byte === expected[at] ? 0 : 1), 0)
  return `is not version ${version}, nor one before it: ${count} bytes differ from byte ${first} on`
}
