// Targets: device state, snapshot files and what lies beside them, and text: URIs, QMP's JSON, keys.

import { deepStrictEqual, ok } from 'node:assert'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { formatUri, parseUri } from '../../src/io/uri.js'
import { JsonStream } from '../../src/qmp/json-stream.js'
import { inspectSnapshot } from '../../src/snapshot/inspect.js'
import { readSidecar, sidecarPath, writeSidecar } from '../../src/snapshot/sidecar.js'
import { readPskKeys } from '../../src/tls/keys.js'
import { device } from '../../src/vmstate/index.js'
import { packValue, unpackValue } from '../../src/vmstate/msgpack.js'
import { encodeMappedRamHeader, MAPPED_RAM_HEADER_SIZE } from '../../src/wire/mapped-ram.js'
import { encodeRamSetupEntry, encodeRamWord, RAM_FLAG } from '../../src/wire/ram.js'
import { encodeFooter } from '../../src/wire/stream.js'
import { loadCapture } from '../support/captures.js'
import {
  eosWord,
  PAGE,
  RAM_SECTION_ID,
  ramIntroduction,
  ramSection,
  streamEnd,
  streamHead,
  written,
} from '../support/peers/stream.js'
import { loadDevices, saveDevices } from '../vmstate/helpers.js'
import { sample } from '../vmstate/samples.js'
import type { Target } from './target.js'

/** A folder for this process's files, made when it is first asked for. */
let scratch: string | undefined
function scratchFile(name: string): string {
  if (scratch === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'multifd-fuzz-'))
    process.once('exit', () => rmSync(made, { recursive: true }))
    scratch = made
  }
  return join(scratch, name)
}

// The same descriptions in every run: an input's first byte says which one.
const SAMPLES = fc.sample(sample(2), { numRuns: 16, seed: 7 })

const structures: Target = {
  name: 'device-state',
  maxSize: 2048,
  codes: ['ERR_MULTIFD_DEVICE', 'ERR_MULTIFD_PROTOCOL', 'ERR_MULTIFD_TRUNCATED'],
  seeds: () =>
    SAMPLES.map(({ description, state }, i) =>
      Uint8Array.from([i, ...saveDevices([device(description, state as never)]).full]),
    ),
  run(input) {
    const { description } = SAMPLES[(input[0] ?? 0) % SAMPLES.length]!
    const state = {}
    const full = input.subarray(1)
    try {
      loadDevices([device(description, state as never)], { full })
    } catch (error) {
      // What is left behind the sections is the caller's.
      if (!/bytes are left$/.test((error as Error).message)) throw error
    }
  },
}

const msgpack: Target = {
  name: 'msgpack',
  maxSize: 4096,
  codes: ['ERR_MULTIFD_PROTOCOL'],
  seeds: () =>
    [1, 'two', [1, [2, { three: 3n }]], { a: new Date(5), b: new Uint8Array(3), c: undefined, d: 1.5 }].map((value) =>
      packValue(value, 4096).slice(),
    ),
  run(input) {
    unpackValue(input)
  },
}

const SNAPSHOT_SIZE = 64 * 1024

const snapshot: Target = {
  name: 'snapshot',
  maxSize: SNAPSHOT_SIZE,
  codes: ['ERR_MULTIFD_SNAPSHOT', 'ERR_MULTIFD_UNSUPPORTED'],
  seeds() {
    const usedLength = 2 * PAGE
    const parts = [
      streamHead('pc-i440fx-10.0', { capabilities: ['mapped-ram'] }),
      ramIntroduction(),
      written((view, at) => encodeRamWord(view, at, usedLength, RAM_FLAG.memSize)),
      written((view, at) => encodeRamSetupEntry(view, at, { idstr: 'pc.ram', usedLength })),
    ]
    const bitmapOffset = parts.reduce((sum, { length }) => sum + length, 0) + MAPPED_RAM_HEADER_SIZE
    const header = { pageSize: PAGE, bitmapOffset, pagesOffset: PAGE }
    const pages = Buffer.alloc(PAGE - bitmapOffset + usedLength)
    pages[0] = 3
    parts.push(
      written((view, at) => encodeMappedRamHeader(view, at, header)),
      pages,
      eosWord(),
    )
    parts.push(written((view, at) => encodeFooter(view, at, RAM_SECTION_ID)))
    parts.push(ramSection('end', [], 'per-section'), streamEnd())
    return [loadCapture('q10.0.2-mapped-ram').mappedRam!.slice(0, 2048), new Uint8Array(Buffer.concat(parts))]
  },
  run(input) {
    const path = scratchFile('snapshot')
    writeFileSync(path, input)
    inspectSnapshot(path)
  },
}

const sidecar: Target = {
  name: 'sidecar',
  maxSize: 4096,
  codes: [],
  seeds() {
    const path = scratchFile('seed')
    writeSidecar(path, { uuid: '12345678-1234-1234-1234-123456789abc' })
    return [new Uint8Array(readFileSync(path))]
  },
  run(input) {
    const path = scratchFile('guest')
    writeFileSync(sidecarPath(path), input)
    const { uuid } = readSidecar(path)
    ok(uuid === undefined || uuid.length === 36)
  },
}

const uri: Target = {
  name: 'uri',
  maxSize: 300,
  codes: ['ERR_MULTIFD_ARGUMENT', 'ERR_MULTIFD_UNSUPPORTED'],
  seeds: () => ['tcp:localhost:4444', 'tcp:[::1]:0', 'unix:/tmp/x', 'fd:3', 'exec:x'].map((text) => Buffer.from(text)),
  run(input) {
    const parsed = parseUri(Buffer.from(input).toString('latin1'))
    deepStrictEqual(parseUri(formatUri(parsed)), parsed)
  },
}

/** The first byte says where the stream is cut into chunks: what comes out is the same. */
const qmpJson: Target = {
  name: 'qmp-json',
  maxSize: 8192,
  codes: [],
  seeds: () =>
    [
      '{"execute":"qmp_capabilities"}\n',
      '{"execute":\n"query-migrate",\n"id":[1,"a"]}\n',
      "{'execute':'x'}",
      '[1\n{"execute":"stop"}\n',
      '\u00ff"x\n1 2 nul }',
    ].map((text) => Uint8Array.from([3, ...Buffer.from(text, 'latin1')])),
  run(input) {
    const bytes = Buffer.from(input.subarray(1))
    const step = 1 + ((input[0] ?? 0) & 63)
    const chunks: Buffer[] = []
    for (let at = 0; at < bytes.length; at += step) chunks.push(bytes.subarray(at, at + step))
    deepStrictEqual(heard(chunks), heard([bytes]))
  },
}

function heard(chunks: readonly Buffer[]): unknown[] {
  const told: unknown[] = []
  const stream = new JsonStream({ value: (value) => told.push(value), error: (reason) => told.push({ reason }) })
  for (const chunk of chunks) stream.push(chunk)
  return told
}

const pskKeys: Target = {
  name: 'psk-keys',
  maxSize: 1024,
  codes: ['ERR_MULTIFD_TLS'],
  seeds: () => [Buffer.from('qemu:00112233\nother:ff\r\n')],
  run(input) {
    writeFileSync(scratchFile('keys.psk'), input)
    for (const key of readPskKeys(scratch!).values()) ok(key.length > 0)
  },
}

export const stateTargets = [structures, msgpack, snapshot, sidecar, uri, qmpJson, pskKeys]
