// Where the fields of recorded streams are, and short streams made of recorded pieces, for damaging on purpose.

import { INITIAL_PACKET_SIZE } from '../../src/wire/multifd-initial.js'
import { encodeRamWord, RAM_FLAG, RAM_WORD_SIZE } from '../../src/wire/ram.js'
import { encodeFooter, FOOTER_SIZE, SECTION } from '../../src/wire/stream.js'
import { PAGE } from './arena.js'
import { concatBytes } from './bytes.js'
import type { Anatomy, Random } from './random.js'
import { type ChannelStream, contextOf, type MainStream, splitPackets, type Unit } from './streams.js'

type Field = Anatomy['fields'][number]

/** A stream to damage. */
export interface Specimen {
  name: string
  bytes: Uint8Array
  anatomy: Anatomy
}

const IDSTR = 64
const OFFSETS = 320
/** Units of a run of records, and of a stream's end. */
const RUN = 12
const END = 6

function packetFields(at: number, pages: number): Field[] {
  const fields: Field[] = []
  for (const word of [0, 4, 8, 8, 12, 16, 16, 20, 20, 32, 32, 36]) fields.push({ at: at + word, size: 4 })
  fields.push({ at: at + 24, size: 8 })
  for (let i = 0; i < 8; i++) fields.push({ at: at + IDSTR + i, size: 1 })
  // As often as all others together: what a packet's pages are written by.
  for (let i = 0; i < Math.min(pages, 20); i++) fields.push({ at: at + OFFSETS + 8 * i, size: 8 })
  return fields
}

export function channelSpecimen({ name, bytes, packets }: ChannelStream): Specimen {
  const fields = packets.flatMap(({ at, pages }) => packetFields(at, pages))
  return { name, bytes, anatomy: { fields, units: packets } }
}

/** A few packets of a channel, in their order, after its first SYNC. */
export function excerptChannel({ name, bytes, packets }: ChannelStream, random: Random, most: number): Specimen {
  const sync = packets.find((packet) => packet.sync)!
  const first = random.below(packets.length)
  const chosen = [sync, ...packets.slice(first, first + most)]
  const parts = chosen.map(({ at, end }) => bytes.subarray(at, end))
  return channelSpecimen(splitPackets(`${name}, packets ${first} to ${first + most - 1}`, concatBytes(...parts)))
}

/** The first bytes of a channel: its initial packet. */
export const INITIAL_ANATOMY: Anatomy = {
  fields: [
    { at: 0, size: 4 },
    { at: 4, size: 4 },
    { at: 8, size: 8 },
    { at: 24, size: 1 },
    { at: 24, size: 1 },
  ],
  units: [{ at: 0, end: INITIAL_PACKET_SIZE }],
}

/** A main stream with a few of its records, its device state, and its description if `whole`. */
export function excerptMain(stream: MainStream, random: Random, whole: boolean): Specimen {
  const { name, bytes, units, setupEnd, ramEnd } = stream
  const parts: Uint8Array[] = [bytes.subarray(0, setupEnd)]
  const anatomy: Anatomy = { fields: [], units: [] }
  let length = setupEnd
  const add = (part: Uint8Array): number => {
    parts.push(part)
    length += part.length
    return length - part.length
  }
  const setup = units.filter(({ at }) => at < setupEnd)
  const rest = units.filter(({ at }) => at >= setupEnd)
  for (const unit of setup) anatomy.fields.push(...unitFields(bytes, unit, unit.at))
  anatomy.units.push(...setup)
  // A run of what comes between, and the end.
  const { run, end } = chooseUnits(rest, random)
  for (const [i, unit] of [...run, ...end].entries()) {
    // What was left out before a unit leaves it without its section's head, or inside another section.
    if (i === run.length) add(closing(stream, run.at(-1)!))
    if (i === 0) add(contextOf(stream, run))
    if (i === run.length) add(contextOf(stream, end))
    const at = add(bytes.subarray(unit.at, unit.end))
    anatomy.fields.push(...unitFields(bytes, unit, at))
    anatomy.units.push({ at, end: length })
  }
  const tail = bytes.subarray(ramEnd, whole || stream.eofAt === undefined ? bytes.length : stream.eofAt + 1)
  const tailAt = add(whole ? tail : tail.subarray(-3000))
  for (let at = tailAt; at < length && at < tailAt + 64; at += FOOTER_SIZE) anatomy.fields.push({ at, size: 4 })
  if (whole && stream.eofAt !== undefined) {
    const eofAt = tailAt + stream.eofAt - ramEnd
    for (const at of [eofAt - 4, eofAt + 2, eofAt + 2]) anatomy.fields.push({ at, size: 4 })
    for (const at of [eofAt - 5, eofAt, eofAt + 1, eofAt + 6]) anatomy.fields.push({ at, size: 1 })
  }
  return { name, bytes: concatBytes(...parts), anatomy }
}

/** A run of units, and the last ones where the run does not reach them. */
function chooseUnits(units: Unit[], random: Random): { run: Unit[]; end: Unit[] } {
  const inFull = (index: number): boolean => units[index]?.section === SECTION.full
  let first = random.below(units.length)
  while (inFull(first)) first--
  let last = first + RUN
  while (inFull(last)) last++
  if (last >= units.length - END) return { run: units.slice(first), end: [] }
  return { run: units.slice(first, last), end: units.slice(-END) }
}

/** What ends the section that a unit lies in. */
function closing({ ramSectionId }: MainStream, { kind, section }: Unit): Uint8Array {
  const bytes = new Uint8Array(RAM_WORD_SIZE + FOOTER_SIZE)
  if (kind !== 'section' && (section === undefined || kind === 'footer')) return bytes.subarray(0, 0)
  const view = new DataView(bytes.buffer)
  const at = kind === 'eos' ? 0 : encodeRamWord(view, 0, 0, RAM_FLAG.eos)
  return bytes.subarray(0, encodeFooter(view, at, ramSectionId))
}

/** The fields of a unit that stands at `at`. */
function unitFields(bytes: Uint8Array, unit: Unit, at: number): Field[] {
  const size = unit.end - unit.at
  const spread = (from: number, step: 1 | 2 | 4 | 8): Field[] =>
    Array.from({ length: Math.max(0, Math.floor((size - from) / step)) }, (_, i) => ({
      at: at + from + i * step,
      size: step,
    }))
  switch (unit.kind) {
    case 'header':
      // The configuration, or the stream's own header.
      return size === 8 ? spread(0, 4) : [{ at, size: 1 }, { at: at + 1, size: 4 }, ...spread(5, 1)]
    case 'command':
      return [{ at, size: 1 }, ...spread(1, 2)]
    case 'section':
      return [{ at, size: 1 }, { at: at + 1, size: 4 }, ...spread(5, 1)]
    case 'setup':
      return [{ at, size: 8 }, ...setupFields(bytes.subarray(unit.at, unit.end), at)]
    case 'early':
      return [...spread(0, 8), ...spread(24, 4)].slice(0, 12)
    case 'footer':
      return [
        { at, size: 1 },
        { at: at + 1, size: 4 },
      ]
    default: {
      const word: Field = { at, size: 8 }
      const named = size > 8 && size < PAGE ? spread(8, 1).slice(0, 8) : []
      return [word, word, { at: at + 6, size: 2 }, ...named]
    }
  }
}

/** Of the list of blocks: the length of each name, and each used length twice. */
function setupFields(list: Uint8Array, at: number): Field[] {
  const fields: Field[] = []
  for (let next = 8; next < list.length; ) {
    fields.push({ at: at + next, size: 1 })
    next += 1 + list[next]!
    fields.push({ at: at + next, size: 8 }, { at: at + next, size: 8 })
    next += 8
  }
  return fields
}
