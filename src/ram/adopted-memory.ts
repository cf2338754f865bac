// Memory that somebody else's code owns, taken as it is: a WebAssembly program's or an emulator's heap.

import { MultifdError } from '../errors.js'
import { addressOf, HOST_PAGE_SIZE } from '../os/memory.js'
import { pageKernel, type SharedMemory } from '../wasm/kernel.js'

/** What RamBlock.adopt takes: a WebAssembly.Memory, or a buffer that begins on a page. */
export type AdoptableMemory = { readonly buffer: ArrayBufferLike } | ArrayBuffer | SharedArrayBuffer

/** In the thread that owns the memory: it keeps it alive, and sees whether it is still the same. */
export class AdoptedMemory {
  readonly idstr: string
  /** Bytes, as they were when it was adopted. */
  readonly size: number
  readonly address: number
  /** What other threads can have of it: the memory where the page kernel can work on it, else its buffer. */
  readonly memory: SharedMemory | undefined
  /** Undefined where it is not shared: other threads use its address alone. */
  readonly keep: SharedArrayBuffer | undefined
  readonly #memory: AdoptableMemory
  readonly #buffer: ArrayBufferLike

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT for memory that does not begin on a page, or is none */
  constructor(idstr: string, memory: AdoptableMemory) {
    const buffer = bufferOf(memory)
    const wrong = (text: string): MultifdError => new MultifdError('ERR_MULTIFD_ARGUMENT', `block '${idstr}': ${text}`)
    if (!buffer) throw wrong('adopt takes a WebAssembly.Memory, an ArrayBuffer or a SharedArrayBuffer')
    if (buffer.byteLength === 0) throw wrong('the memory is empty')
    if (buffer.byteLength % HOST_PAGE_SIZE !== 0) throw wrong(`${buffer.byteLength} bytes are not whole pages`)
    this.address = addressOf(new Uint8Array(buffer))
    if (this.address % HOST_PAGE_SIZE !== 0) {
      throw wrong('the memory does not begin on a page of the machine, as that of a WebAssembly.Memory does')
    }
    this.idstr = idstr
    this.size = buffer.byteLength
    this.keep = buffer instanceof SharedArrayBuffer ? buffer : undefined
    this.memory = this.keep && isForKernel(memory) ? memory : undefined
    this.#memory = memory
    this.#buffer = buffer
  }

  /** @throws MultifdError ERR_MULTIFD_STATE when it is not what it was */
  get buffer(): ArrayBufferLike {
    this.checkSame()
    return this.#buffer
  }

  /**
   * @throws MultifdError ERR_MULTIFD_STATE when the memory has grown or gone since it was adopted: what came into being
   * is not part of the block, and an address may be nobody's now
   */
  checkSame(): void {
    const now = bufferOf(this.#memory)
    // Growing gives a memory another buffer; that of one that is not shared is detached, which leaves it without length.
    if (now && now.byteLength === this.size && this.#buffer.byteLength === this.size) return
    const message = `block '${this.idstr}': the memory had ${this.size} bytes when it was adopted, now ${now?.byteLength}`
    throw new MultifdError('ERR_MULTIFD_STATE', `${message}: it must not grow while it migrates; adopt it again`)
  }
}

function bufferOf(memory: AdoptableMemory): ArrayBufferLike | undefined {
  if (memory instanceof ArrayBuffer || memory instanceof SharedArrayBuffer) return memory
  const { buffer } = (memory ?? {}) as { buffer?: unknown }
  return buffer instanceof ArrayBuffer || buffer instanceof SharedArrayBuffer ? buffer : undefined
}

// Not a buffer by itself, nor a memory with 64-bit addresses.
function isForKernel(memory: AdoptableMemory): memory is SharedMemory {
  try {
    pageKernel(memory as SharedMemory)
    return true
  } catch {
    return false
  }
}
