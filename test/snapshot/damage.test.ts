// Files that are no snapshots, or damaged ones: always an error that says so, and never anything worse.

import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { inspectSnapshot, MultifdError, readSnapshot, SnapshotSender } from '../../src/index.js'
import { loadCapture } from '../support/captures.js'

t.setTimeout(300_000)

const original = Buffer.from(loadCapture('q10.0.2-mapped-ram').mappedRam!)

function copy(t: Test): { path: string; fd: number } {
  const path = join(t.testdir(), 'x')
  writeFileSync(path, original)
  const fd = openSync(path, 'r+')
  t.teardown(() => closeSync(fd))
  return { path, fd }
}

/** What reading throws; undefined when it does not. */
function failureOf(path: string): MultifdError | undefined {
  try {
    inspectSnapshot(path)
    return undefined
  } catch (error) {
    if (error instanceof MultifdError) return error
    throw error
  }
}

t.test('cut off anywhere', async (t) => {
  const { path, fd } = copy(t)
  const { blocks, deviceState } = readSnapshot(path)
  const stateAt = original.length - deviceState.length
  const interesting = [stateAt, original.length]
  for (const { bitmapOffset, bitmapSize, pagesOffset, end } of blocks) {
    interesting.push(bitmapOffset, bitmapOffset + bitmapSize, pagesOffset, end)
  }
  const lengths = new Set<number>()
  for (const place of interesting) for (let near = place - 70; near <= place + 70; near++) lengths.add(near)
  for (let length = 0; length < 300; length++) lengths.add(length)
  for (let length = stateAt; length < original.length; length += 997) lengths.add(length)
  // Cut off there, it is the file of a QEMU that was told to leave the description out.
  const eof = original.lastIndexOf(Buffer.from([0x7e, 0, 0, 0])) + 5
  lengths.delete(eof + 1)
  for (const length of [...lengths].sort((a, b) => b - a)) {
    if (length < 0 || length >= original.length) continue
    ftruncateSync(fd, length)
    const error = failureOf(path)
    if (error?.code === 'ERR_MULTIFD_SNAPSHOT' && error.message.startsWith(`${path} is not a whole snapshot: `))
      continue
    t.fail(`cut off at ${length}: ${error?.code} ${error?.message}`)
  }
  t.throws(() => new SnapshotSender(path), { code: 'ERR_MULTIFD_SNAPSHOT' }, 'and it is not sent')
})

t.test('bytes changed', async (t) => {
  const { path, fd } = copy(t)
  const { blocks, deviceState } = readSnapshot(path)
  const stateAt = original.length - deviceState.length
  const places: number[] = []
  for (let at = 0; at < blocks[0]!.bitmapOffset; at++) places.push(at)
  for (const block of blocks.slice(1)) {
    for (let at = block.bitmapOffset - 60; at < block.bitmapOffset; at++) places.push(at)
  }
  for (let at = stateAt - 60; at < stateAt + 200; at++) places.push(at)
  for (let at = stateAt; at < original.length; at += 331) places.push(at)
  const seen = new Map<string, number>()
  for (const at of places) {
    for (const value of [0, 0xff, original[at]! ^ 1, original[at]! ^ 0x80]) {
      writeSync(fd, Buffer.from([value]), 0, 1, at)
      const code = failureOf(path)?.code ?? 'none'
      seen.set(code, (seen.get(code) ?? 0) + 1)
    }
    writeSync(fd, original, at, 1, at)
  }
  t.ok(seen.get('ERR_MULTIFD_SNAPSHOT')! > 500)
  const allowed = ['ERR_MULTIFD_SNAPSHOT', 'ERR_MULTIFD_UNSUPPORTED', 'none']
  t.strictSame(
    [...seen.keys()].filter((code) => !allowed.includes(code)),
    [],
  )
  t.equal(failureOf(path), undefined, 'as it was, it is whole')
})

for (const [name, bytes, says] of [
  ['an empty file', Buffer.alloc(0), /is not a whole snapshot/],
  ['text', Buffer.from('#!/bin/sh\n'), /stream magic is 0x23212f62/],
  ['zeros', Buffer.alloc(1 << 20), /stream magic is 0x0/],
  [
    'a plain migration stream',
    loadCapture('q10.0.2-precopy').main,
    /it is a migration stream, and not a mapped-ram file/,
  ],
] as const) {
  t.test(name, async (t) => {
    const path = join(t.testdir(), 'x')
    writeFileSync(path, bytes)
    t.throws(() => readSnapshot(path), { code: 'ERR_MULTIFD_SNAPSHOT', message: says })
  })
}

t.test('a file that can not be read', async (t) => {
  const dir = t.testdir()
  t.throws(() => readSnapshot(join(dir, 'missing')), { code: 'ERR_MULTIFD_FILE', errnoName: 'ENOENT' })
  t.throws(() => readSnapshot(dir), { code: 'ERR_MULTIFD_FILE' })
})
