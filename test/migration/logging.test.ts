// Logging: the caller's logger hears every thread and channel, as much as it wants to.

import { pino } from 'pino'
import t from 'tap'
import {
  type Logger,
  MigrationDestination,
  type MigrationParameters,
  MigrationSource,
  type RamBlock,
} from '../../src/index.js'
import { allocate, fillMixed } from '../support/peers/index.js'

const SIZE = 4 * 2 ** 20

interface Line extends Record<string, unknown> {
  level: number
  msg: string
  thread?: string
  channel?: number
  packet?: number
  normal?: number
  zero?: number
  bytes?: number
  barrier?: number
}

function collect(level: string): { logger: Logger; lines: Line[] } {
  const lines: Line[] = []
  return { logger: pino({ level, base: null }, { write: (text) => void lines.push(JSON.parse(text)) }), lines }
}

async function migrate(source: Logger, destination: Logger, parameters: Partial<MigrationParameters> = {}) {
  const [block] = allocate([{ idstr: 'heap', size: SIZE }]) as [RamBlock]
  fillMixed(block)
  const { multifd = true } = parameters
  const there = new MigrationDestination({ ram: allocate([block]), parameters: { multifd }, logger: destination })
  const here = new MigrationSource({ ram: [block], parameters, logger: source })
  const statistics = await here.migrate(await there.listen('tcp:127.0.0.1:0'))
  await there.completed
  await Promise.all([here.close(), there.close()])
  return statistics
}

t.test('trace: a line a packet and a barrier, with what an investigator needs', async (t) => {
  const [source, destination] = [collect('trace'), collect('trace')]
  const { ram } = await migrate(source.logger, destination.logger)
  const sums = (lines: Line[]) => {
    const sum = (name: 'normal' | 'zero'): number => lines.reduce((total, line) => total + (line[name] ?? 0), 0)
    return { normal: sum('normal'), zero: sum('zero') }
  }
  const packets = ({ lines }: { lines: Line[] }): Line[] => lines.filter(({ msg }) => msg === 'packet')
  for (const [side, role] of [
    [source, 'send'],
    [destination, 'recv'],
  ] as const) {
    const found = packets(side)
    t.match(sums(found), { normal: ram.normal, zero: ram.duplicate }, 'every page is in one')
    for (const line of found) {
      const { channel } = line
      if (line.thread !== `mig/${role === 'send' ? 'src' : 'dst'}/${role}_${channel}`) t.fail(JSON.stringify(line))
      if (line.bytes !== (line.normal ?? 0) * 4096) t.fail(JSON.stringify(line))
    }
    t.match(found[0], { level: 10, block: 'heap', flags: 0, packet: Number, at: Number, normal: Number, zero: Number })
  }
  const numbers = (lines: Line[]): number[] => lines.map(({ packet }) => packet!).sort((a, b) => a - b)
  t.strictSame(numbers(packets(destination)), numbers(packets(source)), 'the same packets on both sides')
  const syncs = source.lines.filter(({ msg }) => msg === 'SYNC sent')
  const reached = destination.lines.filter(({ msg }) => msg === 'SYNC')
  t.strictSame(numbers(reached), numbers(syncs))
  const barriers = ({ lines }: { lines: Line[] }) =>
    lines.filter(({ msg }) => msg === 'barrier').map((line) => line.barrier)
  t.strictSame(barriers(source), barriers(destination))
  t.equal(syncs.length, 2 * barriers(source).length, 'one a channel and a barrier')
})

t.test('debug: steps, and no packet; info: less', async (t) => {
  const [debug, info] = [collect('debug'), collect('info')]
  await migrate(debug.logger, info.logger)
  t.match(debug.lines, [{ msg: 'migrating' }])
  const runs = debug.lines.filter(({ msg }) => msg === 'the thread runs')
  t.match(runs.map(({ thread }) => thread).sort(), ['mig/src/main', 'mig/src/send_0', 'mig/src/send_1'])
  t.ok(debug.lines.some(({ msg }) => msg === 'migration status'))
  t.notOk(debug.lines.some(({ msg }) => msg === 'packet'))
  t.match(info.lines, [{ msg: /^listening on tcp:/ }])
  t.equal(info.lines.length, 1)
})

t.test('without multifd there are no packets, and nothing breaks', async (t) => {
  const { logger, lines } = collect('trace')
  await migrate(logger, logger, { multifd: false })
  t.notOk(lines.some(({ msg }) => msg === 'packet'))
  t.ok(lines.some(({ thread }) => thread === 'mig/dst/main'))
})

t.test('a logger that is no pino: no children, and no levels to ask for', async (t) => {
  const heard: { fields: object; message: string }[] = []
  const hear = (fields: object, message: string): void => void heard.push({ fields, message })
  const plain = { debug: hear, info: hear, warn: hear, error: hear }
  await migrate(plain, { ...plain, trace: hear, isLevelEnabled: () => true })
  const threads = heard.filter(({ message }) => message === 'packet')
  t.match(threads[0], { fields: { thread: /^mig\/dst\/recv_\d$/, channel: Number, packet: Number } })
  t.notOk(heard.some(({ fields }) => 'thread' in fields && fields.thread === 'mig/src/main'))
})
