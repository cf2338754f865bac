// The capabilities and parameters that were set, as QEMU keeps them: each checked by itself, all together when they are used.

import type { MigrationParameters } from '../migration/parameters.js'
import type { TlsOptions } from '../tls/options.js'
import { dialectOf } from '../wire/machine.js'
import { QmpError } from './error.js'
import {
  CAPABILITIES,
  CAPABILITY_NAMES,
  type CapabilityName,
  FIXED,
  type FixedName,
  PARAMETER_NAMES,
  PARAMETERS,
  type ParameterName,
} from './names.js'
import type { Arguments } from './schema.js'
import { NO_TLS_SETTINGS, namedTls, type TlsObjects, type TlsSettings } from './tls.js'

type Range = readonly [minimum: number, maximum: number, words: string]

const within = (minimum: number, maximum: number, words = `a value between ${minimum} and ${maximum}`): Range => [
  minimum,
  maximum,
  words,
]
const percent = (maximum: number): Range => within(1, maximum, `an integer in the range of 1 to ${maximum}`)

const RANGES: Partial<Record<ParameterName, Range>> = {
  'multifd-channels': within(1, 255),
  'multifd-zlib-level': within(0, 9),
  'multifd-zstd-level': within(0, 20),
  'downtime-limit': within(0, 2_000_000, 'an integer in the range of 0 to (2000 * 1000) ms'),
  'cpu-throttle-initial': percent(99),
  'cpu-throttle-increment': percent(99),
  'throttle-trigger-threshold': percent(100),
}

const PAGE = 4096

export class Settings {
  #capabilities: Record<CapabilityName, boolean>
  #parameters: Record<ParameterName, unknown>
  #tls: TlsSettings = NO_TLS_SETTINGS
  readonly #tlsObjects: TlsObjects
  readonly #ownTls: TlsOptions | undefined

  /** @param machineType decides what `zeroPageDetection: 'auto'` is */
  constructor(parameters: MigrationParameters, machineType: string, tlsObjects: TlsObjects = {}) {
    this.#tlsObjects = tlsObjects
    this.#ownTls = parameters.tls
    const value = (name: keyof MigrationParameters): unknown => {
      if (name === 'zeroPageDetection' && parameters[name] === 'auto') return dialectOf(machineType).zeroPages
      // Of a destination, which takes it from the stream: QMP has no word for that.
      if (name === 'multifdCompression' && parameters[name] === 'auto') return 'none'
      return parameters[name]
    }
    const states = CAPABILITY_NAMES.map((name) => {
      const ours = CAPABILITIES[name]
      return [name, ours !== undefined && ours !== 'events' && parameters[ours]]
    })
    this.#capabilities = Object.fromEntries(states) as Record<CapabilityName, boolean>
    const values = PARAMETER_NAMES.map((name) => [name, value(PARAMETERS[name])])
    this.#parameters = Object.fromEntries(values) as Record<ParameterName, unknown>
  }

  get events(): boolean {
    return this.#capabilities.events
  }

  capabilities(): { state: boolean; capability: string }[] {
    return CAPABILITY_NAMES.map((capability) => ({ state: this.#capabilities[capability], capability }))
  }

  parameters(): Record<string, unknown> {
    return { ...FIXED, ...this.#tls, ...this.#parameters }
  }

  /** @throws QmpError; nothing is changed then */
  setCapabilities(list: Arguments<'migrate-set-capabilities'>['capabilities']): void {
    const next = { ...this.#capabilities }
    for (const { capability, state } of list) {
      if (state && CAPABILITIES[capability] === undefined) {
        throw new QmpError(`Capability '${capability}' is not supported`)
      }
      next[capability] = state
    }
    if (next.multifd && next.xbzrle) throw new QmpError('Multifd is not compatible with xbzrle')
    if (next['switchover-ack'] && !next['return-path']) {
      throw new QmpError("Capability 'switchover-ack' requires capability 'return-path'")
    }
    checkZeroCopy(next, this.#parameters, this.#tls)
    this.#capabilities = next
  }

  /** @throws QmpError; nothing is changed then */
  setParameters(given: Arguments<'migrate-set-parameters'>): void {
    const next = { ...this.#parameters }
    const tls = { ...this.#tls }
    for (const [name, value] of Object.entries(given)) {
      if (value === undefined) continue
      if (Object.hasOwn(FIXED, name)) {
        if (value !== FIXED[name as FixedName]) throw new QmpError(`Parameter '${name}' is not supported`)
      } else if (Object.hasOwn(tls, name)) tls[name as keyof TlsSettings] = (value as string | null) ?? ''
      else {
        checkParameter(name as ParameterName, value)
        next[name as ParameterName] = value
      }
    }
    if (
      Number(next['max-cpu-throttle']) < Number(next['cpu-throttle-initial']) ||
      Number(next['max-cpu-throttle']) > 99
    ) {
      throw new QmpError("Parameter 'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99")
    }
    checkZeroCopy(this.#capabilities, next, tls)
    this.#parameters = next
    this.#tls = tls
  }

  /**
   * For a source or a destination. Compression is the channels': without multifd there is none.
   *
   * @throws QmpError for an object of TLS that is not there
   */
  engineParameters(): Partial<MigrationParameters> {
    const parameters: Record<string, unknown> = {}
    for (const name of CAPABILITY_NAMES) {
      const ours = CAPABILITIES[name]
      if (ours !== undefined && ours !== 'events') parameters[ours] = this.#capabilities[name]
    }
    for (const name of PARAMETER_NAMES) parameters[PARAMETERS[name]] = this.#parameters[name]
    if (!this.#capabilities.multifd) parameters['multifdCompression'] = 'none'
    parameters['tls'] = namedTls(this.#tls, this.#tlsObjects, this.#ownTls)
    return parameters as Partial<MigrationParameters>
  }
}

function checkParameter(name: ParameterName, value: unknown): void {
  const range = RANGES[name]
  if (range && (Number(value) < range[0] || Number(value) > range[1])) throw refused(name, range[2])
  if (name === 'xbzrle-cache-size' && (!Number.isInteger(Math.log2(Number(value))) || Number(value) < PAGE)) {
    throw refused(name, 'a power of two no less than the target page size')
  }
  if (name === 'multifd-compression' && ['qatzip', 'qpl', 'uadk'].includes(value as string)) {
    throw new QmpError(`Parameter '${name}' does not support value '${value}' here: it wants hardware`)
  }
}

function refused(name: string, wanted: string): QmpError {
  return new QmpError(`Parameter '${name.replaceAll('-', '_')}' expects ${wanted}`)
}

function checkZeroCopy(
  capabilities: Record<CapabilityName, boolean>,
  parameters: Record<ParameterName, unknown>,
  tls: TlsSettings,
): void {
  if (!capabilities['zero-copy-send']) return
  if (capabilities.multifd && parameters['multifd-compression'] === 'none' && tls['tls-creds'] === '') return
  throw new QmpError('Zero copy only available for non-compressed non-TLS multifd migration')
}
