// Targets over real sockets: a whole destination with its threads, and a whole QMP session.

import { ok } from 'node:assert'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type ErrorCode,
  MigrationDestination,
  MigrationSource,
  MultifdError,
  QEMU_DEFAULTS,
  QmpServer,
} from '../../src/index.js'
import { Arena, PAGE } from '../input/arena.js'
import { PEER_CODES } from '../input/runs.js'
import { leftovers, openDescriptors } from '../support/peers/leftovers.js'
import {
  initialPacket,
  openReturnPath,
  packet,
  pageOf,
  pageRecord,
  ramSection,
  ramStart,
  streamEnd,
  streamHead,
  syncPacket,
  zeroRecord,
} from '../support/peers/stream.js'
import type { AsyncTarget } from './target.js'

const MACHINE = 'multifd'
const BLOCKS = [
  { idstr: 'a', size: 4 * PAGE },
  { idstr: 'b', size: 2 * PAGE },
]
/** What a destination waits at most for whatever does not come, ms. */
const PATIENCE_MS = 500
/** When all has been sent and nothing was heard, ms: nobody has come whom the destination takes for its source. */
const UNHEARD_MS = 150
const OUTCOME_MS = 4000
const MOST_CONNECTIONS = 4

let folder: string | undefined
let arena: Arena | undefined
let sockets = 0
let before: Map<number, string> | undefined

function socketPath(): string {
  folder ??= mkdtempSync(join(tmpdir(), 'multifd-fuzz-'))
  return join(folder, `${++sockets}`)
}

/** Removes what the sockets were in. */
export function leaveSockets(): void {
  if (folder) rmSync(folder, { recursive: true, force: true })
  folder = undefined
  arena = undefined
}

/** A connection's bytes in an input: their length in two bytes, and they. */
function framed(...connections: Uint8Array[]): Buffer {
  return Buffer.concat(connections.flatMap((bytes) => [Buffer.of(bytes.length >> 8, bytes.length & 255), bytes]))
}

function unframed(input: Uint8Array): Uint8Array[] {
  const connections: Uint8Array[] = []
  for (let at = 0; at < input.length && connections.length < MOST_CONNECTIONS; ) {
    const length = ((input[at] ?? 0) << 8) | (input[at + 1] ?? 0)
    connections.push(input.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return connections
}

/** Connects and sends; resolves once all of it is with the kernel, or nobody wants it. */
async function send(path: string, bytes: Uint8Array): Promise<Socket> {
  const socket = connect(path)
  socket.on('error', () => {})
  socket.resume()
  await new Promise<void>((resolve) => {
    socket.once('close', () => resolve())
    socket.end(bytes, () => resolve())
  })
  return socket
}

/**
 * The first byte: how many channels there are (two bits), whether there are any, and whether devices are loaded; then the
 * connections, in the order in which they are made.
 */
const destination: AsyncTarget = {
  name: 'destination',
  maxSize: 48 * 1024,
  runs: 40,
  codes: [
    ...([...PEER_CODES].filter((code) => code !== 'end') as ErrorCode[]),
    'ERR_MULTIFD_ABORTED',
    'ERR_MULTIFD_CHANNEL',
    'ERR_MULTIFD_IO',
    'ERR_MULTIFD_TIMEOUT',
  ],
  seeds() {
    const zeros = (idstr: string, count: number): Buffer[] =>
      Array.from({ length: count }, (_, page) => zeroRecord(idstr, page * PAGE))
    const records = [pageRecord('a', 0, pageOf(1)), ...zeros('a', 4).slice(1), ...zeros('b', 2)]
    const start = (sections: Uint8Array[]): Buffer =>
      Buffer.concat([streamHead(MACHINE), ramStart(BLOCKS, 'per-section'), ...sections, streamEnd()])
    const plain = start([ramSection('part', records, 'per-section'), ramSection('end', [], 'per-section')])
    const answered = Buffer.concat([streamHead(MACHINE), openReturnPath(), plain.subarray(streamHead(MACHINE).length)])
    const channel = (id: number): Buffer =>
      Buffer.concat([
        initialPacket(id),
        syncPacket(),
        packet({ idstr: 'a', pages: [[(1 + id) * PAGE, pageOf(7)]], zeros: [0, 3 * PAGE] }),
        packet({ idstr: 'b', zeros: [0, PAGE] }),
        packet({ idstr: 'a', zeros: [2 * PAGE] }),
        syncPacket(1),
      ])
    const multifd = start([ramSection('end', [], 'per-section')])
    return [
      Buffer.concat([Buffer.of(0x00), framed(plain)]),
      Buffer.concat([Buffer.of(0x00), framed(answered)]),
      Buffer.concat([Buffer.of(0x04), framed(multifd, channel(0))]),
      Buffer.concat([Buffer.of(0x05), framed(channel(1), multifd, channel(0))]),
    ]
  },
  async run(input) {
    const [mode = 0] = input
    const connections = unframed(input.subarray(1))
    if (!before) {
      // What the process opens once and keeps.
      await received(mode, connections).catch(() => {})
      before = openDescriptors()
    }
    try {
      await received(mode, connections)
    } finally {
      const { threads, descriptors } = await leftovers(before)
      ok(threads.length === 0 && descriptors.length === 0, `left: ${[...threads, ...descriptors].join(', ')}`)
    }
  },
}

/** Gives the connections to a destination and waits until it is over; what it ended in is thrown. */
async function received(mode: number, connections: Uint8Array[]): Promise<void> {
  arena ??= new Arena(BLOCKS)
  const path = socketPath()
  const parameters = {
    multifd: (mode & 4) !== 0,
    multifdChannels: 1 + (mode & 3),
    helloTimeoutMs: PATIENCE_MS,
    stallTimeoutMs: PATIENCE_MS,
    completionTimeoutMs: PATIENCE_MS,
  }
  const receiver = new MigrationDestination({ ram: arena.blocks, parameters })
  const opened: Socket[] = []
  try {
    await receiver.listen(`unix:${path}`)
    const outcome = receiver.completed.then(
      () => undefined,
      (error: unknown) => error,
    )
    for (const bytes of connections) opened.push(await send(path, bytes))
    const heard = await Promise.race([outcome.then(() => true), delay(UNHEARD_MS, false)])
    // Who was taken for the source has an end; who was not is waited for as long as it takes.
    if (!heard && receiver.status === 'setup') receiver.cancel()
    const end = await Promise.race([outcome, delay(OUTCOME_MS, 'nothing')])
    ok(end !== 'nothing', `nothing came of it in ${OUTCOME_MS} ms: ${receiver.status}`)
    ok(arena.nearIntact, 'wrote outside of its blocks')
    const { status } = receiver
    ok(end === undefined ? status === 'completed' : /^(failed|cancelled)$/.test(status), `it is ${status} with ${end}`)
    if (end instanceof MultifdError) ok(!end.message.includes('\n'), 'an error of more than one line')
    if (end !== undefined) throw end
  } finally {
    for (const socket of opened) socket.destroy()
    await receiver.close()
  }
}

/** Whatever a client sends, a last request is answered, and everything before it with a value, an error or an event. */
const session: AsyncTarget = {
  name: 'qmp-session',
  maxSize: 8192,
  runs: 100,
  codes: [],
  seeds: () =>
    [
      ['{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}', '{"exec-oob":"migrate-pause","id":1}'],
      [
        '{"execute":"qmp_capabilities"}',
        '{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"multifd","state":true}]}}',
        '{"execute":"migrate-set-parameters","arguments":{"multifd-channels":4,"max-bandwidth":1000}}',
        '{"execute":"query-migrate-parameters","id":{"a":[1]}}',
        '{"execute":"query-migrate-capabilities"}',
        '{"execute":"query-migrate"}',
      ],
      ['{"execute":"query-status"}', '{"execute":"qmp_capabilities"}', '{"execute":"stop"}', '{"execute":"cont"}'],
      [
        '{"execute":"qmp_capabilities"}',
        '{"execute":"migrate_cancel"}',
        '{"execute":"yank","arguments":{"instances":[]}}',
      ],
      ['{"execute":"qmp_capabilities"}', '{"execute":"query-commands"}', '{"execute":"quit"}', '{"execute":"x"}'],
      ['{"execute":"qmp_capabilities"}', '{"execute":"calc-dirty-rate","arguments":{"calc-time":1}}'],
      ['{"execute":"qmp_capabilities"}', '{"execute":"migrate","arguments":{"uri":"tcp:127.0.0.1:1"}}'],
    ].map((lines) => Buffer.from(`${lines.join('\n')}\n`)),
  async run(input) {
    arena ??= new Arena(BLOCKS)
    const path = socketPath()
    const source = new MigrationSource({ ram: arena.blocks, parameters: { ...QEMU_DEFAULTS } })
    const server = new QmpServer({ source, stop() {}, resume() {}, quit() {} })
    try {
      await server.listen(`unix:${path}`)
      // 0xff ends whatever was begun.
      const last = Buffer.from('\u00ff\n{"execute":"qmp_capabilities","id":"the last one"}\n', 'latin1')
      const lines = await answers(path, Buffer.concat([input, last]))
      for (const line of lines) {
        const { QMP, event, error, ...answer } = JSON.parse(line)
        if (error !== undefined) ok(typeof error.class === 'string' && typeof error.desc === 'string', line)
        else ok(QMP !== undefined || typeof event === 'string' || Object.hasOwn(answer, 'return'), line)
      }
    } finally {
      await server.close()
      await source.close()
    }
  },
}

/** All lines up to the answer to the last request. */
async function answers(path: string, bytes: Uint8Array): Promise<string[]> {
  const socket = connect(path)
  let text = ''
  const came = new Promise<void>((resolve, reject) => {
    socket.on('data', (chunk) => {
      text += chunk.toString()
      if (/"id":"the last one"[^\n]*\n/.test(text.slice(-400))) resolve()
    })
    for (const event of ['error', 'close'])
      socket.once(event, () => reject(new Error(`the session ended: ${text.slice(-200)}`)))
  })
  try {
    socket.write(bytes)
    const late = delay(OUTCOME_MS, 'late')
    ok((await Promise.race([came, late])) !== 'late', `no answer in ${OUTCOME_MS} ms: ${text.slice(-200)}`)
  } finally {
    // It may break off as it is let go.
    socket.removeAllListeners().on('error', () => {})
    socket.destroy()
  }
  return text.trimEnd().split('\n')
}

export const wholeTargets = [destination, session]
