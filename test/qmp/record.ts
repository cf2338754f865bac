// Records the dialogues with a real QEMU into test/fixtures/qmp: node dist/test/qmp/record.js [7.2 | 10.0] [NAME ...]

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type QemuVersion, qemuVersions, startQemu } from '../support/qemu/index.js'
import { type Dialogue, hold, QmpLine, type Recording, type Side } from './dialogue.js'
import { dialogues } from './dialogues.js'
import { recordingPath } from './recordings.js'

const words = process.argv.slice(2)
const versions = qemuVersions.filter(
  (version) => words.includes(version) || !qemuVersions.some((v) => words.includes(v)),
)
const names = words.filter((word) => !(qemuVersions as readonly string[]).includes(word))

for (const version of versions) {
  const path = recordingPath(version)
  const recordings: Record<string, Recording> = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {}
  for (const dialogue of dialogues) {
    if (names.length > 0 && !names.includes(dialogue.name)) continue
    if (dialogue.since && qemuVersions.indexOf(dialogue.since) > qemuVersions.indexOf(version)) continue
    recordings[dialogue.name] = await record(version, dialogue)
    console.log(version, dialogue.name)
  }
  writeFileSync(path, `${JSON.stringify(recordings, undefined, 1)}\n`)
}

async function record(version: QemuVersion, dialogue: Dialogue): Promise<Recording> {
  const folder = await mkdtemp(join(tmpdir(), 'multifd-record-'))
  const sides: Side[] = dialogue.destination ? ['source', 'destination'] : ['source']
  const lines: Partial<Record<Side, QmpLine>> = {}
  const qemus = []
  try {
    for (const side of sides) {
      const socket = join(folder, `${side}.sock`)
      const qemu = await startQemu({
        version,
        guest: dialogue.running ? 'running' : 'patterned',
        ...(side === 'destination' && { incoming: 'defer' }),
        extraArgs: ['-qmp', `unix:${socket},server=on,wait=off`],
      })
      qemus.push(qemu)
      lines[side] = await QmpLine.connect(socket)
    }
    const recording = await hold(dialogue, lines, folder)
    return JSON.parse(JSON.stringify(recording).replaceAll(folder, '$DIR')) as Recording
  } finally {
    for (const line of Object.values(lines)) line.close()
    for (const qemu of qemus) await qemu.close()
    await rm(folder, { recursive: true, force: true })
  }
}
