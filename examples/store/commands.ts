// What the store does when it is asked: the commands of Redis that it has, in Redis's words.

import type { ReplyWriter } from './resp.js'
import { KEY_MAX, type Table, VALUE_MAX } from './table.js'

/** What a command works on. */
export interface Context {
  table: Table
  reply: ReplyWriter
  /** Lines of `INFO` besides the table's. */
  info(): Record<string, string | number>
  /** Has the store move to the other process; an Error says why it can not now. */
  relocate(): void
}

interface Command {
  /** Arguments, without the command's name. */
  least: number
  most: number
  /** They come in pairs. */
  pairs?: true
  run(context: Context, args: Buffer[]): void
}

const ANY = Number.POSITIVE_INFINITY
const INTEGER = /^-?(0|[1-9]\d{0,15})$/
const NO_ROOM = "OOM command not allowed when used memory > 'maxmemory'."
const NOT_AN_INTEGER = 'ERR value is not an integer or out of range'

const COMMANDS: Record<string, Command> = {
  ping: { least: 0, most: 1, run: ({ reply }, [text]) => (text ? reply.bulk(text) : reply.simple('PONG')) },
  echo: { least: 1, most: 1, run: ({ reply }, [text]) => reply.bulk(text) },
  select: {
    least: 1,
    most: 1,
    run: ({ reply }, [index]) => (index!.toString() === '0' ? reply.ok() : reply.error('ERR DB index is out of range')),
  },
  get: { least: 1, most: 1, run: ({ table, reply }, [key]) => reply.bulk(table.get(key!)) },
  mget: {
    least: 1,
    most: ANY,
    run: ({ table, reply }, keys) => {
      reply.array(keys.length)
      for (const key of keys) reply.bulk(table.get(key))
    },
  },
  set: {
    least: 2,
    most: 2,
    run: (context, [key, value]) => {
      if (put(context, key!, value!)) context.reply.ok()
    },
  },
  mset: {
    least: 2,
    most: ANY,
    pairs: true,
    run: (context, args) => {
      for (let at = 0; at < args.length; at += 2) if (!put(context, args[at]!, args[at + 1]!)) return
      context.reply.ok()
    },
  },
  del: { least: 1, most: ANY, run: ({ table, reply }, keys) => reply.integer(count(keys, (key) => table.delete(key))) },
  exists: { least: 1, most: ANY, run: ({ table, reply }, keys) => reply.integer(count(keys, (key) => table.has(key))) },
  strlen: { least: 1, most: 1, run: ({ table, reply }, [key]) => reply.integer(table.get(key!)?.length ?? 0) },
  incr: { least: 1, most: 1, run: (context, [key]) => add(context, key!, 1) },
  decr: { least: 1, most: 1, run: (context, [key]) => add(context, key!, -1) },
  incrby: { least: 2, most: 2, run: (context, [key, by]) => add(context, key!, integerOf(by!)) },
  dbsize: { least: 0, most: 0, run: ({ table, reply }) => reply.integer(table.size) },
  flushall: { least: 0, most: 0, run: clear },
  flushdb: { least: 0, most: 0, run: clear },
  info: {
    least: 0,
    most: ANY,
    run: ({ table, reply, info }) => {
      const lines = { ...info(), used_memory: table.usedBytes, keys: table.size }
      const text = Object.entries(lines).map(([name, value]) => `${name}:${value}\r\n`)
      reply.bulk(Buffer.from(text.join('')))
    },
  },
  // What redis-cli and redis-benchmark ask for by themselves: there is nothing to tell.
  command: { least: 0, most: ANY, run: ({ reply }) => reply.array(0) },
  config: {
    least: 2,
    most: 2,
    run: ({ reply }, [verb, name]) => {
      if (verb!.toString('latin1').toLowerCase() !== 'get') return reply.error('ERR there is nothing to configure')
      reply.array(2)
      reply.bulk(name)
      reply.bulk(Buffer.alloc(0))
    },
  },
  client: { least: 1, most: ANY, run: ({ reply }) => reply.ok() },
  relocate: {
    least: 0,
    most: 0,
    run: ({ reply, relocate }) => {
      try {
        relocate()
        reply.simple('Background relocation started')
      } catch (error) {
        reply.error(`ERR ${(error as Error).message}`)
      }
    },
  },
}

/** Runs one request and writes its reply. */
export function runRequest(context: Context, [first, ...args]: Buffer[]): void {
  const name = first!.toString('latin1').toLowerCase()
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name]! : undefined
  if (!command) context.reply.error(`ERR unknown command '${name.slice(0, 128)}'`)
  else if (args.length < command.least || args.length > command.most || (command.pairs && args.length % 2 !== 0)) {
    context.reply.error(`ERR wrong number of arguments for '${name}' command`)
  } else command.run(context, args)
}

// Says what is wrong by itself.
function put({ table, reply }: Context, key: Buffer, value: Buffer): boolean {
  if (key.length > KEY_MAX) reply.error('ERR key is too long')
  else if (value.length > VALUE_MAX) reply.error('ERR string exceeds maximum allowed size')
  else if (!table.set(key, value)) reply.error(NO_ROOM)
  else return true
  return false
}

function add(context: Context, key: Buffer, by: number | undefined): void {
  const value = context.table.get(key)
  const sum = (value ? (integerOf(value) ?? Number.NaN) : 0) + (by ?? Number.NaN)
  if (!Number.isSafeInteger(sum)) context.reply.error(NOT_AN_INTEGER)
  else if (put(context, key, Buffer.from(String(sum)))) context.reply.integer(sum)
}

function integerOf(text: Buffer): number | undefined {
  const value = Number(text)
  return INTEGER.test(text.toString('latin1')) && Number.isSafeInteger(value) ? value : undefined
}

function count(keys: Buffer[], test: (key: Buffer) => boolean): number {
  return keys.reduce((sum, key) => sum + (test(key) ? 1 : 0), 0)
}

function clear({ table, reply }: Context): void {
  table.clear()
  reply.ok()
}
