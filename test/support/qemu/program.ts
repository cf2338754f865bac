// The guest without an operating system: a 64 KiB BIOS image that counts in memory for ever, and the check of its work.
//
// The program takes one page of a range after the other, round after round. It adds one to the page's first byte, and
// then writes the lowest bit of the sum to the first byte of the page's partner, which lies in a second range right
// after the first. Whenever the guest is stopped, the first range therefore forms one step: the first k pages hold v,
// all others hold v - 1 (modulo 256). Every partner agrees with its page, save perhaps that of page k - 1. A page that
// was lost, kept from an earlier pass, or put in another's place breaks this. And partners are zero every other round.

export interface ProgramOptions {
  /** Guest address of the first page. */
  start: number
  /** Pages of each of the two ranges. */
  pageCount: number
  /** Iterations of an empty loop after each page: 0 dirties memory as fast as the processor can. */
  delay: number
  /** Whether the guest suspends itself (ACPI S3) after each round; a wake-up begins the next. On i440fx. Default: no. */
  suspend?: boolean
}

export const pageSize = 4096

/** 1 MiB to 7 MiB. */
export const defaultProgram: Readonly<ProgramOptions> = { start: 0x100000, pageCount: 768, delay: 0 }

/** Guest address of what follows the program's memory. */
export function programEnd({ start, pageCount }: Readonly<ProgramOptions>): number {
  return start + 2 * pageCount * pageSize
}

const imageSize = 0x10000
/** The image ends at 4 GiB, and its copy here, below 1 MiB, is the one that real mode can address. */
const imageAddress = 0xf0000
const gdtOffset = 0x100
const gdtrOffset = 0x120
const resetVector = 0xfff0

// Of the i440fx's power management, which a BIOS sets up: PCI function 00:01.3, its PMBASE and PMREGMISC.
const pciAddress = 0xcf8
const pciData = 0xcfc
const piix4PmBase = 0x8000_0b40
const piix4PmEnable = 0x8000_0b80
const pmBase = 0x600
const pm1Control = 4
/** Sleep type 1, and SLP_EN. */
const suspendToRam = (1 << 10) | (1 << 13)

/** The BIOS image. Both ends of a migration need one of the same size (and get its bytes from the stream). */
export function guestBios(options: Partial<ProgramOptions> = {}): Buffer {
  const { start, pageCount, delay, suspend = false } = { ...defaultProgram, ...options }
  const enter = [
    [0xfa], // cli
    [0x2e, 0x66, 0x0f, 0x01, 0x16, ...le16(gdtrOffset)], // lgdt cs:[gdtr]
    [0x0f, 0x20, 0xc0], // mov eax, cr0
    [0x66, 0x83, 0xc8, 0x01], // or eax, 1
    [0x0f, 0x22, 0xc0], // mov cr0, eax: protected mode
  ].flat()
  const farJumpLength = 8
  const enter32 = imageAddress + enter.length + farJumpLength
  const farJump = [0x66, 0xea, ...le32(enter32), ...le16(0x08)] // jmp 0x08:enter32
  const segments = [
    [0x66, 0xb8, ...le16(0x10)], // mov ax, 0x10
    [0x8e, 0xd8], // mov ds, ax
    [0x8e, 0xc0], // mov es, ax
    [0x8e, 0xd0], // mov ss, ax
  ].flat()
  const powerManagement = [
    outl(pciAddress, piix4PmBase),
    outl(pciData, pmBase | 1),
    outl(pciAddress, piix4PmEnable),
    outl(pciData, 1),
  ].flat()
  const sleep = [
    [0xba, ...le32(pmBase + pm1Control)], // mov edx, PM1a_CNT
    [0xb8, ...le32(suspendToRam)], // mov eax, S3 and SLP_EN
    [0x66, 0xef], // out dx, ax
  ].flat()
  const wait = [
    [0xba, ...le32(delay)], // mov edx, delay
    [0x4a], // again: dec edx
    [0x75, 0xfd], // jnz again
  ].flat()
  const round = [
    [0xbf, ...le32(start)], // round: mov edi, start
    [0xb9, ...le32(pageCount)], // mov ecx, pageCount
  ].flat()
  const page = [
    [0xfe, 0x07], // page: inc byte [edi]
    [0x8a, 0x07], // mov al, [edi]
    [0x24, 0x01], // and al, 1
    [0x88, 0x87, ...le32(pageCount * pageSize)], // mov [edi + pageCount * pageSize], al
    [0x81, 0xc7, ...le32(pageSize)], // add edi, pageSize
    delay > 0 ? wait : [],
    [0x49], // dec ecx
  ].flat()
  const jumpLength = 2
  const rest = suspend ? sleep : []
  const loop = [
    [0x75, le8(-(page.length + jumpLength))], // jnz page
    rest,
    [0xeb, le8(-(round.length + page.length + rest.length + 2 * jumpLength))], // jmp round
  ].flat()

  const image = Buffer.alloc(imageSize)
  const begin = suspend ? powerManagement : []
  image.set([...enter, ...farJump, ...segments, ...begin, ...round, ...page, ...loop])
  image.set(
    [
      [0, 0, 0, 0, 0, 0, 0, 0], // 0x00: the null descriptor
      [0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0], // 0x08: code, 0 to 4 GiB, marked accessed: the processor can not, in ROM
      [0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0], // 0x10: data, 0 to 4 GiB, likewise
    ].flat(),
    gdtOffset,
  )
  image.set([...le16(3 * 8 - 1), ...le32(imageAddress + gdtOffset)], gdtrOffset)
  image.set([0xea, ...le16(0), ...le16(imageAddress >> 4)], resetVector) // jmp 0xf000:0
  return image
}

export interface Step {
  /** How many pages the current round has done. */
  step: number
  /** What these pages hold. */
  value: number
}

/** Reads the step from a stopped guest's memory (all of it, from address 0). Throws when the bytes do not form one. */
export function checkStep(memory: Uint8Array, program: Readonly<ProgramOptions> = defaultProgram): Step {
  const { start, pageCount } = program
  const end = programEnd(program)
  if (memory.length < end) throw new Error(`the memory ends at ${memory.length}, the program's at ${end}`)
  const byte = (page: number) => memory[start + page * pageSize]!
  const value = byte(0)
  const before = (value + 255) % 256
  let step = 1
  while (step < pageCount && byte(step) === value) step++
  for (let page = 0; page < pageCount; page++) {
    const expected = page < step ? value : before
    if (byte(page) !== expected) {
      throw new Error(
        `no single step: pages 0 to ${step - 1} hold ${value}, so page ${page} of ${pageCount} must hold ` +
          `${expected}, and it holds ${byte(page)}`,
      )
    }
    const partner = byte(pageCount + page)
    if (partner === (expected & 1) || (page === step - 1 && partner === (before & 1))) continue
    throw new Error(
      `no single step: page ${page} of ${pageCount} holds ${expected}, so its partner must hold ${expected & 1}, ` +
        `and it holds ${partner}`,
    )
  }
  return { step, value }
}

// out dx, eax
function outl(port: number, value: number): number[] {
  return [0xba, ...le32(port), 0xb8, ...le32(value), 0xef]
}

function le8(value: number): number {
  return value & 0xff
}

function le16(value: number): number[] {
  return [value & 0xff, value >>> 8]
}

function le32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
}
