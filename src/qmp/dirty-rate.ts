// calc-dirty-rate and query-dirty-rate, over the memory of the source or the destination.
//
// Source: QEMU 10.0, qapi/migration.json.

import { DirtyRateMeter } from '../migration/dirty-rate.js'
import type { RamBlock } from '../ram/block.js'
import { QmpError } from './error.js'
import type { Arguments } from './schema.js'

const MIB = 2 ** 20
const UNIT_MS = { second: 1000, millisecond: 1 } as const

/** QEMU's DirtyRateInfo. */
export interface DirtyRateInfo {
  /** MiB a second, once it is measured. */
  'dirty-rate'?: number
  status: string
  /** Seconds since 1970; 0 before the first measurement. */
  'start-time': number
  'calc-time': number
  'calc-time-unit': keyof typeof UNIT_MS
  'sample-pages': number
  mode: string
}

export class DirtyRateControl {
  readonly #meter: DirtyRateMeter | undefined

  /** @param memory none: nothing is there to measure */
  constructor(memory: readonly RamBlock[]) {
    this.#meter = memory.length === 0 ? undefined : new DirtyRateMeter(memory)
  }

  /** Resolves once it is being measured. @throws QmpError, MultifdError */
  async calculate(given: Arguments<'calc-dirty-rate'>): Promise<void> {
    if (!this.#meter) throw new QmpError('There is no memory of a program here')
    const { 'calc-time': calcTime, 'calc-time-unit': unit = 'second', 'sample-pages': samplePages, mode } = given
    await this.#meter.begin({
      calcTime: calcTime * UNIT_MS[unit],
      ...(mode !== undefined && { mode }),
      ...(samplePages !== undefined && { samplePages }),
    })
  }

  info({ 'calc-time-unit': unit = 'second' }: Arguments<'query-dirty-rate'>): DirtyRateInfo {
    const latest = this.#meter?.latest
    return {
      ...(latest?.bytesPerSecond !== undefined && { 'dirty-rate': Math.round(latest.bytesPerSecond / MIB) }),
      status: latest?.status ?? 'unstarted',
      'start-time': Math.floor((latest?.startTime ?? 0) / 1000),
      'calc-time': Math.floor((latest?.calcTime ?? 0) / UNIT_MS[unit]),
      'calc-time-unit': unit,
      'sample-pages': latest?.samplePages ?? 0,
      mode: latest?.mode ?? 'page-sampling',
    }
  }

  async close(): Promise<void> {
    await this.#meter?.close()
  }
}
