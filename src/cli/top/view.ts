// A look at a migration as a screen, and as a line.

import { bytes, duration, percent, printable, rate, table } from '../format.js'
import type { Look } from './watch.js'

const BAR_WIDTH = 40
const NONE = '-'

const known = <T>(value: T | undefined, show: (value: T) => string): string =>
  value === undefined ? NONE : show(value)
const load = (cpu: number | undefined): string => known(cpu, (share) => `${Math.round(share)}%`)

/** All of it, for a terminal. */
export function screen(where: string, look: Look): string[] {
  const { ram, status = 'none', 'error-desc': error } = look
  const lines = [
    `multifd top  ${printable(where)}  ${look.version}`,
    '',
    `state ${printable(status)}, program ${printable(look['run-state'])}${error === undefined ? '' : `: ${printable(error)}`}`,
  ]
  if (ram) lines.push('', bar(look), '', ...table(facts(look), 'lrlr').split('\n'))
  if (look.threads.length > 0) lines.push('', ...threadTable(look).split('\n'))
  return lines
}

function bar({ ram = {} }: Look): string {
  const { total = 0, remaining = 0 } = ram
  const share = total === 0 ? 0 : Math.min(1, Math.max(0, 1 - remaining / total))
  const full = Math.round(share * BAR_WIDTH)
  const left = `${bytes(remaining)} of ${bytes(total)} left`
  return `${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)} ${percent(total - remaining, total)}%  ${left}`
}

function facts(look: Look): string[][] {
  const { ram = {}, rates, 'xbzrle-cache': cache } = look
  const pages = (name: string): string => known(ram[name], String)
  const rows = [
    ['pass', pages('dirty-sync-count'), 'time', known(look['total-time'], duration)],
    ['transferred', known(ram['transferred'], bytes), 'set-up', known(look['setup-time'], duration)],
    ['rate', known(rates?.transferred, rate), 'left takes', known(look['remaining-time'], duration)],
    ['on the channels', known(rates?.['multifd-bytes'], rate), 'downtime', known(look.downtime, duration)],
    ['written', known(look.dirtied, rate), 'downtime expected', known(look['expected-downtime'], duration)],
    ['pages', pages('normal'), 'zero pages', pages('duplicate')],
  ]
  const throttle = look['cpu-throttle-percentage']
  if (throttle !== undefined) rows.push(['slowed down by', `${throttle}%`, '', ''])
  if (cache)
    rows.push(['XBZRLE pages', known(cache['pages'], String), 'cache misses', known(cache['cache-miss'], String)])
  return rows.map(([name, value, other, last]) => [name!, value!, `   ${other}`, last!])
}

function threadTable({ threads }: Look): string {
  const rows = threads.map(({ name, 'thread-id': id, cpu }) => [printable(name), String(id), load(cpu)])
  return table([['thread', 'id', 'cpu'], ...rows], 'lrr')
}

/** The same in one line. */
export function line(look: Look): string {
  const { ram, rates, status = 'none', 'error-desc': error } = look
  const parts = [`${printable(status)}${error === undefined ? '' : ` (${printable(error)})`}`]
  if (ram) {
    parts.push(
      `pass ${known(ram['dirty-sync-count'], String)}`,
      `${known(ram['transferred'], bytes)} sent`,
      known(rates?.transferred, rate),
      `${known(ram['remaining'], bytes)} left`,
      `written ${known(look.dirtied, rate)}`,
    )
  }
  if (look.downtime !== undefined) parts.push(`downtime ${duration(look.downtime)}`)
  for (const { name, cpu } of look.threads) parts.push(`${printable(name)} ${load(cpu)}`)
  return parts.join(', ')
}
