// What the commands share: options, their values, and the parameters they make.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { DEFAULT_PARAMETERS, type MigrationParameters } from '../migration/parameters.js'

export interface CommonOptions extends LogOptions {
  channels: number
  multifd: boolean
  uuid?: string
  stallTimeout: number
  json?: true
  metrics?: HostPort
}

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const

export interface LogOptions {
  logLevel?: (typeof LOG_LEVELS)[number]
  verbose?: true
}

/** Adds the options of what is logged; see makeLogger. */
export function withLogOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--log-level <level>', 'what is logged; trace has a line a packet; default: warn').choices(LOG_LEVELS),
    )
    .option('-v, --verbose', 'log every step: --log-level debug')
}

/** Where something is served over HTTP. */
export interface HostPort {
  host: string
  port: number
}

/** A whole number in a range, as an option's value. */
export function whole(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      throw new InvalidArgumentError(`It must be a whole number from ${minimum} to ${maximum}.`)
    }
    return value
  }
}

/** An option that may be repeated. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

const SCALES: Record<string, number> = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }

/** Bytes, with an optional K, M or G (powers of 1024). */
export function byteCount(text: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([KMG]?)$/i.exec(text) ?? []
  const value = Math.floor(Number(number) * SCALES[unit.toUpperCase()]!)
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('It must be a number of bytes, such as 500M or 2G.')
  return value
}

/** Where in a file a snapshot begins. */
export function offsetOption(description: string): Option {
  return new Option('--offset <bytes>', `${description}, such as 4096 or 1M`).argParser(byteCount)
}

/** Seconds as an option's value, kept as milliseconds. */
export function seconds(minimumMs: number): (text: string) => number {
  return (text) => {
    const value = Math.round(Number(text) * 1000)
    if (!/^\d+(\.\d+)?$/.test(text) || value < minimumMs || value > 86_400_000) {
      throw new InvalidArgumentError(`It must be a number of seconds from ${minimumMs / 1000} to 86400.`)
    }
    return value
  }
}

/** An option in seconds whose default is a parameter's. */
export function secondsOption(flags: string, description: string, defaultMs: number, minimumMs: number): Option {
  return new Option(flags, description).default(defaultMs, `${defaultMs / 1000}`).argParser(seconds(minimumMs))
}

export function channelsOption(defaultChannels: number): Option {
  return new Option('-c, --channels <n>', 'parallel channels, 1 to 255; both sides need the same number')
    .default(defaultChannels)
    .argParser(whole(1, 255))
}

/** Adds the options of every command that moves a guest. */
export function withCommonOptions(command: Command, uuid: string): Command {
  command
    .addOption(channelsOption(DEFAULT_PARAMETERS.multifdChannels))
    .option('--no-multifd', "QEMU's default stream: everything on one connection")
    .option('--uuid <uuid>', uuid)
    .addOption(
      secondsOption(
        '--stall-timeout <seconds>',
        'give up when nothing moves for so long; 0: never',
        DEFAULT_PARAMETERS.stallTimeoutMs,
        0,
      ),
    )
    .option('--json', 'print one JSON object at the end on standard output, and nothing else there')
    .addOption(metricsOption())
    .hook('preAction', () => {
      if (command.getOptionValue('multifd') || command.getOptionValueSource('channels') !== 'cli') return
      command.error('error: --channels is of no use with --no-multifd: everything goes on one connection')
    })
  return withLogOptions(command)
}

/** `HOST:PORT`, IPv6 addresses in brackets. */
export function metricsOption(): Option {
  return new Option('--metrics <host:port>', 'serve metrics for Prometheus over HTTP').argParser((text) => {
    const [, inBrackets, plain, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? []
    if (port === undefined || Number(port) > 65535) {
      throw new InvalidArgumentError('It must be HOST:PORT, with a port from 0 to 65535.')
    }
    return { host: inBrackets ?? plain ?? '', port: Number(port) } satisfies HostPort
  })
}

export function commonParameters(options: CommonOptions): Partial<MigrationParameters> {
  return {
    multifd: options.multifd,
    multifdChannels: options.channels,
    stallTimeoutMs: options.stallTimeout,
  }
}
