// What the commands share: options, their values, and the parameters they make.

import { type Command, InvalidArgumentError, Option } from 'commander'
import type { MigrationParameters } from '../migration/parameters.js'

export interface CommonOptions {
  channels: number
  multifd: boolean
  uuid?: string
  stallTimeout: number
  json: boolean
  verbose: boolean
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

/** Bytes, with an optional K, M or G (powers of 1024). */
export function byteCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([KMG]?)$/i.exec(text)
  if (!match) throw new InvalidArgumentError('It must be a number of bytes, such as 500M or 2G.')
  const scale = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3 }[match[2]!.toUpperCase()]!
  return Math.floor(Number(match[1]) * scale)
}

/** Seconds as an option's value, kept as milliseconds. */
export function seconds(text: string): number {
  const value = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || value > 86_400) throw new InvalidArgumentError('It must be a number of seconds.')
  return Math.round(value * 1000)
}

/** Adds the options of every command that moves memory. */
export function withCommonOptions(command: Command): Command {
  return command
    .addOption(
      new Option('-c, --channels <n>', 'parallel channels; both sides need the same')
        .default(2)
        .argParser(whole(1, 255)),
    )
    .option('--no-multifd', "QEMU's default stream: everything on one connection")
    .option('--uuid <uuid>', "the guest's uuid: sent, or checked")
    .addOption(
      new Option('--stall-timeout <seconds>', 'give up when nothing moves for so long; 0: never')
        .default(60_000, '60')
        .argParser(seconds),
    )
    .option('--json', 'print one JSON object at the end, and nothing else, on standard output', false)
    .option('-v, --verbose', 'log every step', false)
}

export function commonParameters(options: CommonOptions): Partial<MigrationParameters> {
  return {
    multifd: options.multifd,
    multifdChannels: options.channels,
    stallTimeoutMs: options.stallTimeout,
  }
}
