// What each command takes: the one table that every argument is checked against, and QEMU's words for what does not fit.

import { z } from 'zod'
import { DIRTY_RATE_MODES } from '../migration/dirty-rate.js'
import { QmpError } from './error.js'
import { CAPABILITY_NAMES, FIXED, type FixedName } from './names.js'

const nothing = z.strictObject({})
const MIGRATION_STATUS = [
  ...['none', 'setup', 'cancelling', 'cancelled', 'active', 'postcopy-active', 'postcopy-paused'],
  ...['postcopy-recover-setup', 'postcopy-recover', 'completed', 'failed', 'colo', 'pre-switchover', 'device'],
  'wait-unplug',
] as const

/** An unsigned integer of so many bits; what JavaScript can not hold exactly is refused. */
function uint(bits: 8 | 32 | 64) {
  const most = bits === 64 ? Number.MAX_SAFE_INTEGER : 2 ** bits - 1
  const inRange = (value: unknown): boolean =>
    Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) <= most
  return z.custom<number>(inRange, {
    error: ({ input }) => (Number.isSafeInteger(input) && bits < 64 ? `expects uint${bits}_t` : 'expects uint64'),
  })
}

const integer = z.custom<number>((value) => Number.isSafeInteger(value), { error: 'expected: integer' })
const timeUnit = z.enum(['second', 'millisecond'])

const stringOrNull = z.custom<string | null>((value) => value === null || typeof value === 'string', {
  error: 'expected: StrOrNull',
})

const INET = {
  type: z.literal('inet'),
  host: z.string(),
  port: z.string(),
  numeric: z.boolean().optional(),
  to: uint(32).optional(),
  ipv4: z.boolean().optional(),
  ipv6: z.boolean().optional(),
  'keep-alive': z.boolean().optional(),
  mptcp: z.boolean().optional(),
}
const socket = { transport: z.literal('socket') }
const socketAddress = z.discriminatedUnion('type', [
  z.strictObject({ ...socket, ...INET }),
  z.strictObject({
    ...socket,
    type: z.literal('unix'),
    path: z.string(),
    abstract: z.boolean().optional(),
    tight: z.boolean().optional(),
  }),
  z.strictObject({ ...socket, type: z.literal('vsock'), cid: z.string(), port: z.string() }),
  z.strictObject({ ...socket, type: z.literal('fd'), str: z.string() }),
])
const address = z.discriminatedUnion('transport', [
  socketAddress,
  z.strictObject({ transport: z.literal('exec'), args: z.array(z.string()) }),
  z.strictObject({ ...INET, transport: z.literal('rdma'), type: z.unknown().optional() }),
  z.strictObject({ transport: z.literal('file'), filename: z.string(), offset: uint(64) }),
])
const channels = z.array(z.strictObject({ 'channel-type': z.enum(['main', 'cpr']), addr: address }))

export type MigrationAddress = z.infer<typeof address>
export type MigrationChannels = z.infer<typeof channels>

function fixed(value: (typeof FIXED)[FixedName]) {
  if (typeof value === 'string') return z.string()
  return typeof value === 'boolean' ? z.boolean() : uint(64)
}
const fixedParameters = Object.fromEntries(
  Object.entries(FIXED).map(([name, value]) => [name, fixed(value).optional()]),
)

/** By command. A command is known if it is here. */
export const SCHEMA = {
  qmp_capabilities: z.strictObject({ enable: z.array(z.enum(['oob'])).optional() }),
  'query-version': nothing,
  'query-commands': nothing,
  'query-status': nothing,
  quit: nothing,
  migrate: z.strictObject({
    uri: z.string().optional(),
    channels: channels.optional(),
    detach: z.boolean().optional(),
    resume: z.boolean().optional(),
  }),
  'migrate-incoming': z.strictObject({
    uri: z.string().optional(),
    channels: channels.optional(),
    'exit-on-error': z.boolean().optional(),
  }),
  migrate_cancel: nothing,
  'migrate-continue': z.strictObject({ state: z.enum(MIGRATION_STATUS) }),
  'migrate-pause': nothing,
  'migrate-set-capabilities': z.strictObject({
    capabilities: z.array(z.strictObject({ capability: z.enum(CAPABILITY_NAMES), state: z.boolean() })),
  }),
  'query-migrate-capabilities': nothing,
  'migrate-set-parameters': z.strictObject({
    'cpu-throttle-initial': uint(8).optional(),
    'cpu-throttle-increment': uint(8).optional(),
    'cpu-throttle-tailslow': z.boolean().optional(),
    'max-cpu-throttle': uint(8).optional(),
    'throttle-trigger-threshold': uint(8).optional(),
    'max-bandwidth': uint(64).optional(),
    'downtime-limit': uint(64).optional(),
    'multifd-channels': uint(8).optional(),
    'multifd-compression': z.enum(['none', 'zlib', 'zstd', 'qatzip', 'qpl', 'uadk']).optional(),
    'multifd-zlib-level': uint(8).optional(),
    'multifd-zstd-level': uint(8).optional(),
    'xbzrle-cache-size': uint(64).optional(),
    'zero-page-detection': z.enum(['none', 'legacy', 'multifd']).optional(),
    'tls-authz': stringOrNull.optional(),
    'tls-creds': stringOrNull.optional(),
    'tls-hostname': stringOrNull.optional(),
    ...fixedParameters,
  }),
  'query-migrate-parameters': nothing,
  'query-migrate': nothing,
  'query-migrationthreads': nothing,
  'calc-dirty-rate': z.strictObject({
    'calc-time': integer,
    'calc-time-unit': timeUnit.optional(),
    'sample-pages': integer.optional(),
    mode: z.enum(DIRTY_RATE_MODES).optional(),
  }),
  'query-dirty-rate': z.strictObject({ 'calc-time-unit': timeUnit.optional() }),
  yank: z.strictObject({
    instances: z.array(
      z.discriminatedUnion('type', [
        z.strictObject({ type: z.literal('migration') }),
        z.strictObject({ type: z.literal('chardev'), id: z.string() }),
        z.strictObject({ type: z.literal('block-node'), 'node-name': z.string() }),
      ]),
    ),
  }),
  'query-yank': nothing,
} as const

export type CommandName = keyof typeof SCHEMA
export type Arguments<Name extends CommandName> = z.infer<(typeof SCHEMA)[Name]>

export function isCommand(name: string): name is CommandName {
  return Object.hasOwn(SCHEMA, name)
}

/** @throws QmpError GenericError, in QEMU's words */
export function checkArguments<Name extends CommandName>(name: Name, given: object): Arguments<Name> {
  const result = SCHEMA[name].safeParse(given)
  if (result.success) return result.data as Arguments<Name>
  throw new QmpError(wordsOf(result.error.issues[0]!, given))
}

function wordsOf(issue: z.core.$ZodIssue, given: object): string {
  const at = pathOf(issue.path)
  if (issue.code === 'unrecognized_keys') return `Parameter '${pathOf([...issue.path, issue.keys[0]!])}' is unexpected`
  const value = valueAt(given, issue.path)
  if (value === undefined) return `Parameter '${at}' is missing`
  if (issue.code === 'custom') {
    return issue.message.startsWith('expected')
      ? `Invalid parameter type for '${at}', ${issue.message}`
      : `Parameter '${at}' ${issue.message}`
  }
  if (issue.code === 'invalid_type') return `Invalid parameter type for '${at}', expected: ${issue.expected}`
  // A union tells only that no alternative has that word.
  if (typeof value !== 'string') return `Invalid parameter type for '${at}', expected: string`
  // QEMU has no name for an element of a list.
  const last = issue.path.at(-1)
  return `Parameter '${typeof last === 'number' ? 'null' : String(last)}' does not accept value '${value}'`
}

function pathOf(path: PropertyKey[]): string {
  return path.reduce<string>((text, key) => {
    if (typeof key === 'number') return `${text}[${key}]`
    return text === '' ? String(key) : `${text}.${String(key)}`
  }, '')
}

function valueAt(given: unknown, path: PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], given)
}
