// A migration's parameters and capabilities: QEMU's names in camelCase, QEMU's ranges, and our defaults.

import { MultifdError } from '../errors.js'

export const COMPRESSIONS = ['none'] as const
export const ZERO_PAGE_DETECTIONS = ['none', 'legacy', 'multifd'] as const

/** See docs/parameters.md for what each does and where its default is not QEMU's. */
export interface MigrationParameters {
  /** Parallel channels (capability multifd). False is QEMU's default stream: everything on one connection. */
  multifd: boolean
  /** Channels beside the main one, 1–255. Both sides must say the same. */
  multifdChannels: number
  multifdCompression: (typeof COMPRESSIONS)[number]
  /** Source: whether and where zero pages are looked for. `auto`: what the machine type's QEMU does. */
  zeroPageDetection: (typeof ZERO_PAGE_DETECTIONS)[number] | 'auto'
  /** Source: pages that are sent again go as what changed in them (capability xbzrle). Without multifd only. */
  xbzrle: boolean
  /** Source: bytes for the pages that changes are encoded against: a power of two, a target page or more. */
  xbzrleCacheSize: number
  /** Source: ask the destination for its word, and complete on its success only. */
  returnPath: boolean
  /** Source: bytes a second, 0 for no limit. */
  maxBandwidth: number
  /** Source: longest time the program may stand still, ms, 0–2000000. */
  downtimeLimit: number
  /** Source: longest time that a connection may take, ms. */
  connectTimeoutMs: number
  /** Destination: longest time between a connection and its first bytes, and between the first and the last connection. */
  helloTimeoutMs: number
  /** Longest time without a byte once a transfer has begun, ms; 0 for no limit. */
  stallTimeoutMs: number
  /** Source: longest wait for the destination's word after the last byte, ms; 0 for no limit. */
  completionTimeoutMs: number
}

export const DEFAULT_PARAMETERS: Readonly<MigrationParameters> = {
  multifd: true,
  multifdChannels: 2,
  multifdCompression: 'none',
  zeroPageDetection: 'auto',
  xbzrle: false,
  xbzrleCacheSize: 64 * 1024 * 1024,
  returnPath: true,
  maxBandwidth: 0,
  downtimeLimit: 300,
  connectTimeoutMs: 10_000,
  helloTimeoutMs: 10_000,
  stallTimeoutMs: 60_000,
  completionTimeoutMs: 600_000,
}

// Of the machines that QEMU emulates.
const MIN_PAGE_SIZE = 1024

type Rule = readonly [minimum: number, maximum: number] | readonly string[] | 'boolean' | 'power of two'

const RULES: Record<keyof MigrationParameters, Rule> = {
  multifd: 'boolean',
  multifdChannels: [1, 255],
  multifdCompression: COMPRESSIONS,
  zeroPageDetection: [...ZERO_PAGE_DETECTIONS, 'auto'],
  xbzrle: 'boolean',
  xbzrleCacheSize: 'power of two',
  returnPath: 'boolean',
  maxBandwidth: [0, Number.MAX_SAFE_INTEGER],
  downtimeLimit: [0, 2_000_000],
  connectTimeoutMs: [1, 2 ** 31],
  helloTimeoutMs: [1, 2 ** 31],
  stallTimeoutMs: [0, 2 ** 31],
  completionTimeoutMs: [0, 2 ** 31],
}

/**
 * The given parameters over the defaults.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT for an unknown name, a value out of range, or values that exclude each other
 */
export function completeParameters(given: Partial<MigrationParameters> = {}): MigrationParameters {
  for (const [name, value] of Object.entries(given)) {
    const rule = Object.hasOwn(RULES, name) ? RULES[name as keyof MigrationParameters] : undefined
    if (!rule) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `there is no parameter '${name}'`)
    if (value !== undefined) checkValue(name, value, rule)
  }
  const known = Object.entries(given).filter(([, value]) => value !== undefined)
  const parameters: MigrationParameters = { ...DEFAULT_PARAMETERS, ...Object.fromEntries(known) }
  if (parameters.multifd && parameters.xbzrle) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'multifd is not compatible with xbzrle: switch one of them off')
  }
  return parameters
}

function checkValue(name: string, value: unknown, rule: Rule): void {
  if (rule === 'boolean') {
    if (typeof value !== 'boolean') throw bad(name, value, 'true or false')
  } else if (rule === 'power of two') {
    const power = Number.isSafeInteger(value) && Number.isInteger(Math.log2(value as number))
    if (!power || (value as number) < MIN_PAGE_SIZE) {
      throw bad(name, value, 'a power of two, and no less than a target page')
    }
  } else if (typeof rule[0] === 'number') {
    const [minimum, maximum] = rule as readonly [number, number]
    if (!(Number.isInteger(value) && (value as number) >= minimum && (value as number) <= maximum)) {
      throw bad(name, value, `a whole number from ${minimum} to ${maximum}`)
    }
  } else if (!(rule as readonly unknown[]).includes(value)) throw bad(name, value, `one of ${rule.join(', ')}`)
}

function bad(name: string, value: unknown, wanted: string): MultifdError {
  return new MultifdError(
    'ERR_MULTIFD_ARGUMENT',
    `parameter '${name}' is ${JSON.stringify(value)}: it must be ${wanted}`,
  )
}
