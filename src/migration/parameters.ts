// A migration's parameters and capabilities: QEMU's names in camelCase, QEMU's ranges, and our defaults.

import { MultifdError } from '../errors.js'
import type { MigrationUri } from '../io/uri.js'
import type { SendMethodOptions } from '../method/methods.js'
import { zstdImplementation } from '../method/zstd.js'
import { checkTlsOptions, type TlsOptions } from '../tls/options.js'

export const COMPRESSIONS = ['none', 'zlib', 'zstd', 'auto'] as const
/** QEMU's methods that want hardware. */
const HARDWARE_COMPRESSIONS: readonly unknown[] = ['qpl', 'uadk', 'qatzip']
export const ZERO_PAGE_DETECTIONS = ['none', 'legacy', 'multifd'] as const
export const AT_LIMIT = ['fail', 'switchover'] as const

/** See docs/parameters.md for what each does and where its default is not QEMU's. */
export interface MigrationParameters {
  /** Parallel channels (capability multifd). False is QEMU's default stream: everything on one connection. */
  multifd: boolean
  /** Channels beside the main one, 1–255. Both sides must say the same. */
  multifdChannels: number
  /**
   * What the channels do with pages. `auto`: at a destination, whatever the source does; at a source, what the link is
   * worth, packet by packet, towards a destination of ours, and `none` towards any other.
   */
  multifdCompression: (typeof COMPRESSIONS)[number]
  /** Source: 0–9. */
  multifdZlibLevel: number
  /** Source: 0–20. */
  multifdZstdLevel: number
  /** Source: whether and where zero pages are looked for. `auto`: what the machine type's QEMU does. */
  zeroPageDetection: (typeof ZERO_PAGE_DETECTIONS)[number] | 'auto'
  /** Source: pages that are sent again go as what changed in them (capability xbzrle). Without multifd only. */
  xbzrle: boolean
  /** Source: bytes for the pages that changes are encoded against: a power of two, a target page or more. */
  xbzrleCacheSize: number
  /** Source: ask the destination for its word, and complete on its success only. */
  returnPath: boolean
  /**
   * Both: the program runs until the destination's devices agree to the switchover (capability switchover-ack). Needs the
   * return path.
   */
  switchoverAck: boolean
  /** Source: wait for `continue()` once the program has stopped (capability pause-before-switchover). */
  pauseBeforeSwitchover: boolean
  /** Source: the kernel sends pages from where they lie, without copying them first (capability zero-copy-send). */
  zeroCopySend: boolean
  /** Both: encrypts every connection, and says who may be at its other end; undefined for plain ones. */
  tls: TlsOptions | undefined
  /**
   * Both: the pages of shared blocks stay where they are, for both sides map the same memory (capability
   * x-ignore-shared).
   */
  ignoreShared: boolean
  /** Source: bytes a second, 0 for no limit. */
  maxBandwidth: number
  /** Source: longest time the program may stand still, ms, 0–2000000. */
  downtimeLimit: number
  /** Source: the program is asked to go slower while a migration does not gain (capability auto-converge). */
  autoConverge: boolean
  /** Source: what may become dirty, in percent of what is sent meanwhile, before the program is slowed down, 1–100. */
  throttleTriggerThreshold: number
  /** Source: percent of its time that the program loses first, 1–99. */
  cpuThrottleInitial: number
  /** Source: percent that it loses more each time, 1–99. */
  cpuThrottleIncrement: number
  /** Source: smaller steps at the end, no larger than needed. */
  cpuThrottleTailslow: boolean
  /** Source: most percent that it loses, `cpuThrottleInitial`–99. */
  maxCpuThrottle: number
  /** Source: passes after which {@link atLimit} holds; 0 for no limit. */
  maxPasses: number
  /** Source: time from the first pass on, ms, after which {@link atLimit} holds; 0 for no limit. */
  timeoutMs: number
  /**
   * Source: what becomes of a migration that has not converged by then: it fails and the program goes on, or the program is
   * stopped for as long as the rest takes.
   */
  atLimit: (typeof AT_LIMIT)[number]
  /** Source: longest time that a connection may take, ms. */
  connectTimeoutMs: number
  /** Destination: longest time between a connection and its first bytes, and between the first and the last connection. */
  helloTimeoutMs: number
  /** Longest time without a byte once a transfer has begun, ms; 0 for no limit. */
  stallTimeoutMs: number
  /** Source: longest wait for the destination's word after the last byte, ms; 0 for no limit. */
  completionTimeoutMs: number
}

/** A source's; a destination's differ in {@link DESTINATION_DEFAULTS}. */
export const DEFAULT_PARAMETERS: Readonly<MigrationParameters> = {
  multifd: true,
  multifdChannels: 2,
  multifdCompression: 'none',
  multifdZlibLevel: 1,
  multifdZstdLevel: 1,
  zeroPageDetection: 'auto',
  xbzrle: false,
  xbzrleCacheSize: 64 * 1024 * 1024,
  returnPath: true,
  switchoverAck: false,
  pauseBeforeSwitchover: false,
  zeroCopySend: false,
  tls: undefined,
  ignoreShared: false,
  maxBandwidth: 0,
  downtimeLimit: 300,
  autoConverge: false,
  throttleTriggerThreshold: 50,
  cpuThrottleInitial: 20,
  cpuThrottleIncrement: 10,
  cpuThrottleTailslow: false,
  maxCpuThrottle: 99,
  maxPasses: 0,
  timeoutMs: 0,
  atLimit: 'fail',
  connectTimeoutMs: 10_000,
  helloTimeoutMs: 10_000,
  stallTimeoutMs: 60_000,
  completionTimeoutMs: 600_000,
}

export const DESTINATION_DEFAULTS = { multifdCompression: 'auto' } as const

// Of the machines that QEMU emulates.
const MIN_PAGE_SIZE = 1024

type Rule =
  | readonly [minimum: number, maximum: number]
  | readonly string[]
  | 'boolean'
  | 'power of two'
  | ((value: unknown) => void)

const RULES: Record<keyof MigrationParameters, Rule> = {
  multifd: 'boolean',
  multifdChannels: [1, 255],
  multifdCompression: COMPRESSIONS,
  multifdZlibLevel: [0, 9],
  multifdZstdLevel: [0, 20],
  zeroPageDetection: [...ZERO_PAGE_DETECTIONS, 'auto'],
  xbzrle: 'boolean',
  xbzrleCacheSize: 'power of two',
  returnPath: 'boolean',
  switchoverAck: 'boolean',
  pauseBeforeSwitchover: 'boolean',
  zeroCopySend: 'boolean',
  tls: checkTlsOptions,
  ignoreShared: 'boolean',
  maxBandwidth: [0, Number.MAX_SAFE_INTEGER],
  downtimeLimit: [0, 2_000_000],
  autoConverge: 'boolean',
  throttleTriggerThreshold: [1, 100],
  cpuThrottleInitial: [1, 99],
  cpuThrottleIncrement: [1, 99],
  cpuThrottleTailslow: 'boolean',
  maxCpuThrottle: [1, 99],
  maxPasses: [0, Number.MAX_SAFE_INTEGER],
  timeoutMs: [0, 2 ** 31 - 1],
  atLimit: AT_LIMIT,
  connectTimeoutMs: [1, 2 ** 31],
  helloTimeoutMs: [1, 2 ** 31],
  stallTimeoutMs: [0, 2 ** 31],
  completionTimeoutMs: [0, 2 ** 31],
}

/**
 * The given parameters over the defaults.
 *
 * @throws MultifdError ERR_MULTIFD_ARGUMENT for an unknown name, a value out of range, or values that do not go together;
 * ERR_MULTIFD_UNSUPPORTED for a compression method that wants hardware
 */
export function completeParameters(
  given: Partial<MigrationParameters> = {},
  side: 'source' | 'destination' = 'source',
): MigrationParameters {
  for (const [name, value] of Object.entries(given)) {
    const rule = Object.hasOwn(RULES, name) ? RULES[name as keyof MigrationParameters] : undefined
    if (!rule) throw new MultifdError('ERR_MULTIFD_ARGUMENT', `there is no parameter '${name}'`)
    if (value !== undefined) checkValue(name, value, rule)
  }
  const known = Object.entries(given).filter(([, value]) => value !== undefined)
  const defaults = side === 'source' ? DEFAULT_PARAMETERS : { ...DEFAULT_PARAMETERS, ...DESTINATION_DEFAULTS }
  const complete: MigrationParameters = { ...defaults, ...Object.fromEntries(known) }
  const { multifd, multifdCompression: method, xbzrle } = complete
  if (!multifd && (method === 'zlib' || method === 'zstd')) {
    const text = `compression ${method} is for parallel channels: switch multifd on, or compression off`
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', text)
  }
  if (multifd && xbzrle) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'multifd is not compatible with xbzrle: switch one of them off')
  }
  const { switchoverAck, returnPath, cpuThrottleInitial, maxCpuThrottle } = complete
  if (switchoverAck && !returnPath) {
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', "parameter 'switchoverAck' is true: it needs the return path")
  }
  if (maxCpuThrottle < cpuThrottleInitial) {
    const text = `parameter 'maxCpuThrottle' is ${maxCpuThrottle}: it must be at least 'cpuThrottleInitial', ${cpuThrottleInitial}`
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', text)
  }
  return complete
}

/** What a migration that runs takes up at once. */
const LIVE: readonly string[] = ['maxBandwidth', 'downtimeLimit'] satisfies (keyof MigrationParameters)[]

/** The first parameter that differs and can not be changed while a migration runs. */
export function changedWhileRunning(now: MigrationParameters, next: MigrationParameters): string | undefined {
  const names = Object.keys(next) as (keyof MigrationParameters)[]
  return names.find((name) => now[name] !== next[name] && !LIVE.includes(name))
}

/**
 * What of the compression depends on the machine.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED, with what to install
 */
export function checkCompression({ multifdCompression }: MigrationParameters): void {
  if (multifdCompression === 'zstd') zstdImplementation()
}

/** @throws MultifdError ERR_MULTIFD_ARGUMENT for what needs more connections than a URI gives, or another kind */
export function checkConnections({ transport }: MigrationUri, { multifd, tls }: MigrationParameters): void {
  if (transport !== 'fd' && transport !== 'file') return
  if (multifd) {
    const text = `${transport}: is one connection: switch multifd off, or use tcp: or unix:`
    throw new MultifdError('ERR_MULTIFD_ARGUMENT', text)
  }
  if (transport === 'file' && tls) throw new MultifdError('ERR_MULTIFD_ARGUMENT', 'file: has no other end for TLS')
}

/** What a source's channels are told. */
export function sendMethodOptions(parameters: MigrationParameters): SendMethodOptions {
  const { multifdCompression: method, multifdZlibLevel: zlibLevel, multifdZstdLevel: zstdLevel } = parameters
  return { method, zlibLevel, zstdLevel }
}

function checkValue(name: string, value: unknown, rule: Rule): void {
  if (name === 'multifdCompression' && HARDWARE_COMPRESSIONS.includes(value)) {
    const text = `compression ${value} wants hardware, and is not supported: it must be one of ${COMPRESSIONS.join(', ')}`
    throw new MultifdError('ERR_MULTIFD_UNSUPPORTED', text)
  }
  if (typeof rule === 'function') rule(value)
  else if (rule === 'boolean') {
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
