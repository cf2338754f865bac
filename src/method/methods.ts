// The methods by name: what a channel sends with, and which of them it receives.

import { MultifdError } from '../errors.js'
import { COUNTER } from '../shm/layout.js'
import type { MigrationShm } from '../shm/migration-shm.js'
import { MULTIFD_FLAG } from '../wire/multifd-packet.js'
import { AdaptiveSend } from './adaptive.js'
import type { RecvMethod, SendMethod } from './method.js'
import { NoneRecv, NoneSend } from './none.js'
import { zlibRecv, zlibSend } from './zlib.js'
import { zstdRecv, zstdSend } from './zstd.js'

/** Methods that two peers agree on beforehand. */
export type MethodName = 'none' | 'zlib' | 'zstd'
const FLAGS: Record<MethodName, number> = { none: 0, zlib: MULTIFD_FLAG.zlib, zstd: MULTIFD_FLAG.zstd }

/** What a source's channels are told; `auto` is the adaptive method. */
export interface SendMethodOptions {
  method: MethodName | 'auto'
  /** 0–9. */
  zlibLevel: number
  /** 0–20. */
  zstdLevel: number
}

const PICKS = { none: COUNTER.picksNone, low: COUNTER.picksLow, high: COUNTER.picksHigh } as const

/**
 * A channel's method, for its life. For `auto` both sides must have agreed: see `adaptive` of the shared memory, which
 * is settled before the first pages.
 *
 * @throws MultifdError ERR_MULTIFD_UNSUPPORTED for zstd where there is none
 */
export function makeSendMethod(options: SendMethodOptions, shm: MigrationShm, channel: number): SendMethod {
  const { method, zlibLevel, zstdLevel } = options
  if (method === 'auto' && shm.adaptive) return new AdaptiveSend((choice) => shm.count(channel, PICKS[choice], 1))
  if (method === 'zlib') shm.noteMethod(channel, FLAGS.zlib)
  else if (method === 'zstd') shm.noteMethod(channel, FLAGS.zstd)
  else return new NoneSend()
  return method === 'zlib' ? zlibSend(zlibLevel) : zstdSend(zstdLevel)
}

const MAKE_RECV: Record<MethodName, () => RecvMethod> = { none: () => new NoneRecv(), zlib: zlibRecv, zstd: zstdRecv }
const NAMES = Object.keys(FLAGS) as MethodName[]

/** One channel's receiving methods: one for its life, or, where both sides agreed to it, plain and zstd in turns. */
export class RecvMethods {
  readonly #agreed: MethodName | 'auto'
  readonly #adaptive: () => boolean
  readonly #noted: (flag: number) => void
  readonly #made: Partial<Record<MethodName, RecvMethod>> = {}
  #current: RecvMethod | undefined
  #name: MethodName | undefined

  /**
   * @param agreed `auto`: what the channel's first packet with pages has
   * @param adaptive whether packets of one channel may differ; asked at the first one
   * @param noted is told the flag of every method that comes into use
   */
  constructor(
    agreed: MethodName | 'auto' = 'auto',
    adaptive: () => boolean = () => false,
    noted: (flag: number) => void = () => {},
  ) {
    this.#agreed = agreed
    this.#adaptive = adaptive
    this.#noted = noted
  }

  static of(shm: MigrationShm, channel: number, agreed: MethodName | 'auto'): RecvMethods {
    return new RecvMethods(
      agreed,
      () => shm.adaptive,
      (flag) => shm.noteMethod(channel, flag),
    )
  }

  /**
   * The method that a packet's flags name; the hardware's were refused before.
   *
   * @throws MultifdError ERR_MULTIFD_PROTOCOL when it is not the channel's, ERR_MULTIFD_UNSUPPORTED for zstd where there
   * is none
   */
  select(flag: number): RecvMethod {
    if (flag === this.#current?.flag) return this.#current
    const name = NAMES.find((known) => FLAGS[known] === flag)
    if (!name) throw new MultifdError('ERR_MULTIFD_PROTOCOL', `compression method 0x${flag.toString(16)} is unknown`)
    this.#check(name)
    this.#name = name
    this.#made[name] ??= this.#make(name)
    this.#current = this.#made[name]
    return this.#current
  }

  close(): void {
    for (const name of NAMES) this.#made[name]?.close()
  }

  #check(name: MethodName): void {
    if (this.#agreed !== 'auto') {
      if (name === this.#agreed) return
      const text = `compression method ${name} is not the agreed one, which is ${this.#agreed}`
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', text)
    }
    if (this.#adaptive()) {
      if (name !== 'zlib') return
      throw new MultifdError('ERR_MULTIFD_PROTOCOL', 'compression method zlib is not of those agreed, none and zstd')
    }
    if (this.#name === undefined) return
    const text = `compression method ${name} is not the one that the channel began with, which is ${this.#name}`
    throw new MultifdError('ERR_MULTIFD_PROTOCOL', text)
  }

  #make(name: MethodName): RecvMethod {
    this.#noted(FLAGS[name])
    return MAKE_RECV[name]()
  }
}

/** The method of a mask of flags in use. */
export function methodName(flags: number): MethodName {
  return NAMES.find((name) => FLAGS[name] !== 0 && (flags & FLAGS[name]) !== 0) ?? 'none'
}
