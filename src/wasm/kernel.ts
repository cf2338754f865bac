// The page loops of assembly/pages.ts, compiled once for all threads of the process, and the memory they work on.

import { readFileSync } from 'node:fs'

/** A shared WebAssembly.Memory: its buffer starts on a page, never moves, and can be handed to other threads. */
export interface SharedMemory {
  readonly buffer: SharedArrayBuffer
}

/** See assembly/pages.ts. Positions are bytes from the memory's start. */
export interface PageKernel {
  writeOffsets(runs: number, count: number, shift: number, at: number): number
  readOffsets(at: number, count: number, shift: number, pages: number, runs: number): number
  vectorOf(runs: number, count: number, shift: number, address: number, pages: number, vector: number): number
  encodePacket(
    header: number,
    flags: number,
    size: number,
    packetNum: number,
    normal: number,
    zero: number,
    shift: number,
    before: number,
  ): number
  acceptPacket(expected: number): number
  isSync(header: number, capacity: number): number
  takePages(bitmap: number, words: number, from: number, most: number, runs: number): number
  splitPages(first: number, count: number, zeros: number, normal: number, zero: number): void
  findZeroPage(first: number, count: number, shift: number): number
  zeroPages(first: number, count: number, shift: number): number
}

// The types of Node 20 leave it out.
declare const WebAssembly: {
  Memory: new (descriptor: { initial: number; maximum: number; shared: true }) => SharedMemory
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object, imports: object) => { exports: object }
}

const WASM_PAGE = 65536
/** What a memory can hold, bytes. */
export const MEMORY_MAX = 2 ** 32

/** Fresh zeroed memory of at least so many bytes, {@link MEMORY_MAX} at most. Throws the engine's RangeError. */
export function makeSharedMemory(bytes: number): SharedMemory {
  const pages = Math.ceil(bytes / WASM_PAGE)
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
}

let module: object | undefined

export function pageKernel(memory: SharedMemory): PageKernel {
  module ??= new WebAssembly.Module(readFileSync(new URL('./pages.wasm', import.meta.url)))
  return new WebAssembly.Instance(module, { env: { memory } }).exports as PageKernel
}
