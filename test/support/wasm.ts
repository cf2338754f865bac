// A WebAssembly program with a memory of its own: it stores words, and lets its memory grow.

interface Program {
  memory: { readonly buffer: ArrayBuffer; grow(pages: number): number }
  /** Stores a 32-bit word at a byte address. */
  store(address: number, value: number): void
  /** Grows the memory by so many pages of 64 KiB. */
  grow(pages: number): number
}

// The types of Node 20 leave it out.
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object) => { exports: unknown }
}

const name = (text: string): number[] => [text.length, ...Buffer.from(text)]
const section = (id: number, content: number[]): number[] => [id, content.length, ...content]

function leb(value: number): number[] {
  const bytes: number[] = []
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return [...bytes, rest]
    bytes.push((rest & 0x7f) | 0x80)
  }
}

/** @param pages of 64 KiB, at first */
export function wasmProgram(pages: number): Program {
  const i32 = 0x7f
  const bytes = [
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, 0x60, 2, i32, i32, 0, 0x60, 1, i32, 1, i32]),
    ...section(3, [2, 0, 1]),
    ...section(5, [1, 0, ...leb(pages)]),
    ...section(7, [3, ...name('memory'), 2, 0, ...name('store'), 0, 0, ...name('grow'), 0, 1]),
    // local.get 0, local.get 1, i32.store; and local.get 0, memory.grow
    ...section(10, [2, 9, 0, 0x20, 0, 0x20, 1, 0x36, 2, 0, 0x0b, 6, 0, 0x20, 0, 0x40, 0, 0x0b]),
  ]
  return new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(bytes))).exports as Program
}
