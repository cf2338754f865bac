// What is done per page, in AssemblyScript. Every thread of a process shares one compiled copy of this, whereas the same
// loops in JavaScript would be interpreted, profiled and compiled again in every thread of every migration.
//
// A run is two u32: index of the first page, number of pages. Page sizes are given as shifts. Runs, offsets and vectors
// lie in the memory that a migration's threads share; `zeroPages` is instantiated over a RAM block's own memory.

/** Bytes of a run, of an offset on the wire, and of a struct iovec. */
const RUN: u32 = 8
const OFFSET: u32 = 8
const IOVEC: u32 = 16

// A packet's header, as src/wire/multifd-packet.ts has it.
const MAGIC: u32 = 0x11223344
const VERSION: u32 = 1
const SYNC: u32 = 1
const FLAGS: u32 = 8
const PAGES_ALLOC: u32 = 12
const NORMAL_PAGES: u32 = 16
const NEXT_PACKET_SIZE: u32 = 20
const PACKET_NUM: u32 = 24
const ZERO_PAGES: u32 = 32
const NAME: u32 = 64
const NAME_SIZE: u32 = 256
const OFFSETS: u32 = 320
const MAX_PAYLOAD: u32 = 1048576

/** Writes the byte offsets of the runs' pages, big-endian; returns where they end. */
export function writeOffsets(runs: u32, count: u32, shift: u32, at: u32): u32 {
  const end = runs + count * RUN
  for (; runs < end; runs += RUN) {
    const first = <u64>load<u32>(runs)
    const last = first + load<u32>(runs, 4)
    for (let page = first; page < last; page++) {
      store<u64>(at, bswap<u64>(page << shift))
      at += OFFSET
    }
  }
  return at
}

/**
 * Reads `count` offsets, as a peer wrote them, into runs. `pages` is what the block has.
 *
 * @returns the number of runs; or of offset i, -1 - 2 i when it is no multiple of the page size, -2 - 2 i when it lies
 * beyond the block
 */
export function readOffsets(at: u32, count: u32, shift: u32, pages: f64, runs: u32): i32 {
  const limit = <u64>pages
  const mask = ((<u64>1) << shift) - 1
  let run = runs - RUN
  let next: u64 = u64.MAX_VALUE
  for (let i: u32 = 0; i < count; i++, at += OFFSET) {
    const offset = bswap<u64>(load<u64>(at))
    if ((offset & mask) !== 0) return -1 - 2 * i
    const page = offset >> shift
    if (page >= limit) return -2 - 2 * i
    if (page === next) store<u32>(run, load<u32>(run, 4) + 1, 4)
    else {
      run += RUN
      store<u32>(run, <u32>page)
      store<u32>(run, 1, 4)
    }
    next = page + 1
  }
  return <i32>((run + RUN - runs) / RUN)
}

/**
 * Writes one struct iovec a run. `address` and `pages` are the block's: with `checkedAddress` this is the only way to
 * an address that a system call gets.
 *
 * @returns bytes of all runs, or -1 when a run is empty or does not lie in the block
 */
export function vectorOf(runs: u32, count: u32, shift: u32, address: f64, pages: f64, vector: u32): f64 {
  const base = <u64>address
  const limit = <u64>pages
  const end = runs + count * RUN
  let total: u64 = 0
  for (; runs < end; runs += RUN, vector += IOVEC) {
    const first = <u64>load<u32>(runs)
    const length = <u64>load<u32>(runs, 4)
    if (length === 0 || first + length > limit) return -1
    store<u64>(vector, base + (first << shift))
    store<u64>(vector, length << shift, 8)
    total += length
  }
  return <f64>(total << shift)
}

/**
 * Completes a packet's header, of which magic, version, pages_alloc and the block's name are there: flags, counts, size,
 * number, and the offsets of both lists. `before` is how many offsets the packet before had.
 */
export function encodePacket(
  header: u32,
  flags: u32,
  size: u32,
  number: f64,
  normal: u32,
  zero: u32,
  shift: u32,
  before: u32,
): u32 {
  const normalPages = load<u32>(normal - RUN, 4)
  const zeroPages = load<u32>(zero - RUN, 4)
  store<u32>(header + FLAGS, bswap<u32>(flags))
  store<u32>(header + NORMAL_PAGES, bswap<u32>(normalPages))
  store<u32>(header + NEXT_PACKET_SIZE, bswap<u32>(size))
  store<u64>(header + PACKET_NUM, bswap<u64>(<u64>number))
  store<u32>(header + ZERO_PAGES, bswap<u32>(zeroPages))
  let at = writeOffsets(normal, load<u32>(normal - RUN), shift, header + OFFSETS)
  at = writeOffsets(zero, load<u32>(zero - RUN), shift, at)
  const end = header + OFFSETS + before * OFFSET
  for (; at < end; at += OFFSET) store<u64>(at, 0)
  return normalPages + zeroPages
}

// What the packets of a channel have in common, as src/shm/packet-memory.ts has it: u32, then f64.
const CAPACITY: u32 = 0
const EXPECTED_NAME: u32 = 4
const METHOD: u32 = 8
const SHIFT: u32 = 12
const NORMAL: u32 = 16
const ZERO: u32 = 20
const VECTOR: u32 = 24
const HEADER: u32 = 28
const HEADER_SIZE: u32 = 32
const STAGED: u32 = 36
const BLOCK_PAGES: u32 = 40
const ADDRESS: u32 = 48
const HEADER_ADDRESS: u32 = 56

/**
 * Takes a packet apart that is like the one before: pages of the same block by the same method, and no SYNC. Fills both
 * lists and their counts. Where pages come as they are, writes where they and the next header go too: an entry for each
 * run of normal pages, or one for all of them where they are staged; one for the header.
 *
 * @returns bytes of payload, or -1 for anything else, and for whatever is wrong: the caller then looks closer
 */
export function acceptPacket(expected: u32): i32 {
  const header = load<u32>(expected, HEADER)
  const method = load<u32>(expected, METHOD)
  if (bswap<u32>(load<u32>(header)) !== MAGIC || bswap<u32>(load<u32>(header, 4)) !== VERSION) return -1
  if (bswap<u32>(load<u32>(header + FLAGS)) !== method) return -1
  const alloc = bswap<u32>(load<u32>(header + PAGES_ALLOC))
  const normalPages = bswap<u32>(load<u32>(header + NORMAL_PAGES))
  const zeroPages = bswap<u32>(load<u32>(header + ZERO_PAGES))
  if (alloc > load<u32>(expected, CAPACITY) || normalPages > alloc || zeroPages > alloc - normalPages) return -1
  if (normalPages + zeroPages === 0) return -1
  if (bswap<u64>(load<u64>(header + PACKET_NUM)) >> 53 !== 0) return -1
  if (!sameName(header + NAME, load<u32>(expected, EXPECTED_NAME))) return -1
  const shift = load<u32>(expected, SHIFT)
  let size = bswap<u32>(load<u32>(header + NEXT_PACKET_SIZE))
  if (normalPages === 0) size = 0
  else if (method === 0) {
    if (size !== normalPages << shift) return -1
  } else if (size === 0 || size > MAX_PAYLOAD) return -1
  const normal = load<u32>(expected, NORMAL)
  const zero = load<u32>(expected, ZERO)
  const pages = load<f64>(expected, BLOCK_PAGES)
  const normalRuns = readOffsets(header + OFFSETS, normalPages, shift, pages, normal)
  const zeroRuns = readOffsets(header + OFFSETS + normalPages * OFFSET, zeroPages, shift, pages, zero)
  if (normalRuns < 0 || zeroRuns < 0) return -1
  store<u32>(normal - RUN, normalRuns)
  store<u32>(normal - RUN, normalPages, 4)
  store<u32>(zero - RUN, zeroRuns)
  store<u32>(zero - RUN, zeroPages, 4)
  if (method === 0 && !writePlaces(expected, normal, normalRuns, size)) return -1
  return size
}

/** Whether a packet that can carry `capacity` pages is a SYNC alone, with nothing wrong: for all else the caller looks closer. */
export function isSync(header: u32, capacity: u32): bool {
  if (bswap<u32>(load<u32>(header)) !== MAGIC || bswap<u32>(load<u32>(header, 4)) !== VERSION) return false
  if (bswap<u32>(load<u32>(header + FLAGS)) !== SYNC) return false
  if (bswap<u32>(load<u32>(header + PAGES_ALLOC)) > capacity) return false
  if (load<u32>(header + NORMAL_PAGES) !== 0 || load<u32>(header + ZERO_PAGES) !== 0) return false
  return bswap<u64>(load<u64>(header + PACKET_NUM)) >> 53 === 0
}

function writePlaces(expected: u32, normal: u32, runs: u32, size: u32): bool {
  const address = load<f64>(expected, ADDRESS)
  let vector = load<u32>(expected, VECTOR)
  if (load<u32>(expected, STAGED) === 0) {
    const shift = load<u32>(expected, SHIFT)
    if (vectorOf(normal, runs, shift, address, load<f64>(expected, BLOCK_PAGES), vector) < 0) return false
    vector += runs * IOVEC
  } else if (size !== 0) {
    store<u64>(vector, <u64>address)
    store<u64>(vector, size, 8)
    vector += IOVEC
  }
  store<u64>(vector, <u64>load<f64>(expected, HEADER_ADDRESS))
  store<u64>(vector, load<u32>(expected, HEADER_SIZE), 8)
  return true
}

function sameName(a: u32, b: u32): bool {
  for (let i: u32 = 0; i < NAME_SIZE; i++) {
    const byte = load<u8>(a + i)
    if (byte !== load<u8>(b + i)) return false
    if (byte === 0) return true
  }
  return false
}

/**
 * Moves pages from a bitmap, 32 to a word, to the end of a list of runs, clearing their bits, until the list has `most`
 * pages. Before the list stand its number of runs and its number of pages.
 *
 * @returns the word to go on from; `words` when the bitmap is at its end
 */
export function takePages(bitmap: u32, words: u32, from: u32, most: u32, runs: u32): u32 {
  let count = load<u32>(runs - RUN)
  let pages = load<u32>(runs - RUN, 4)
  let run = runs + count * RUN
  let next: u32 = count > 0 ? load<u32>(run - RUN) + load<u32>(run - RUN, 4) : u32.MAX_VALUE
  let word = from
  while (word < words && pages < most) {
    const at = bitmap + (word << 2)
    let bits = load<u32>(at)
    while (bits !== 0 && pages < most) {
      const bit = ctz<u32>(bits)
      const length = min<u32>(ctz<u32>(~(bits >> bit)), min<u32>(32 - bit, most - pages))
      bits &= ~(<u32>((((<u64>1) << length) - 1) << bit))
      const page = (word << 5) + bit
      if (page === next) store<u32>(run - RUN, load<u32>(run - RUN, 4) + length, 4)
      else {
        store<u32>(run, page)
        store<u32>(run, length, 4)
        run += RUN
        count++
      }
      pages += length
      next = page + length
    }
    store<u32>(at, bits)
    if (bits === 0) word++
  }
  store<u32>(runs - RUN, count)
  store<u32>(runs - RUN, pages, 4)
  return word
}

/**
 * Moves up to 32 pages from `first` on to the ends of two lists: those whose bit of `zeros` is set to the one of zero
 * pages, the others to the one of normal pages. Before a list stand its number of runs and its number of pages.
 */
export function splitPages(first: u32, count: u32, zeros: u32, normal: u32, zero: u32): void {
  for (let at: u32 = 0; at < count; ) {
    const bits = zeros >> at
    const isZero = (bits & 1) !== 0
    const length = min<u32>(ctz<u32>(isZero ? ~bits : bits), count - at)
    append(isZero ? zero : normal, first + at, length)
    at += length
  }
}

function append(runs: u32, first: u32, pages: u32): void {
  const count = load<u32>(runs - RUN)
  store<u32>(runs - RUN, load<u32>(runs - RUN, 4) + pages, 4)
  const run = runs + count * RUN
  if (count > 0 && load<u32>(run - RUN) + load<u32>(run - RUN, 4) === first) {
    store<u32>(run - RUN, load<u32>(run - RUN, 4) + pages, 4)
    return
  }
  store<u32>(run, first)
  store<u32>(run, pages, 4)
  store<u32>(runs - RUN, count + 1)
}

/** Index of the first zero page among `count` from `first` on, counted from there; `count` when none is. */
export function findZeroPage(first: u32, count: u32, shift: u32): u32 {
  let at = first << shift
  const size = (<u32>1) << shift
  for (let i: u32 = 0; i < count; i++, at += size) {
    if ((load<u64>(at) | load<u64>(at, 8)) === 0 && isZero(at, size)) return i
  }
  return count
}

/** Which of up to 32 pages from `first` on are zero: bit i for the i-th. */
export function zeroPages(first: u32, count: u32, shift: u32): u32 {
  let zeros: u32 = 0
  let at = first << shift
  const size = (<u32>1) << shift
  for (let i: u32 = 0; i < count; i++, at += size) {
    // Almost every page with data has some here.
    if ((load<u64>(at) | load<u64>(at, 8)) !== 0) continue
    if (isZero(at, size)) zeros |= (<u32>1) << i
  }
  return zeros
}

function isZero(at: u32, size: u32): bool {
  for (let done: u32 = 0; done < size; done += 128, at += 128) {
    let any = v128.or(v128.load(at), v128.load(at, 16))
    any = v128.or(any, v128.or(v128.load(at, 32), v128.load(at, 48)))
    any = v128.or(any, v128.or(v128.load(at, 64), v128.load(at, 80)))
    any = v128.or(any, v128.or(v128.load(at, 96), v128.load(at, 112)))
    if (v128.any_true(any)) return false
  }
  return true
}
