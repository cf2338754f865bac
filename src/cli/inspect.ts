// multifd inspect: what a snapshot holds.

import type { Command } from 'commander'
import { MultifdError } from '../errors.js'
import { inspectSnapshot, type SnapshotInfo } from '../snapshot/inspect.js'
import { bytes, kebabKeys, printable, table } from './format.js'
import { offsetOption } from './options.js'
import { errorObject, failure, printJson } from './report.js'

const EXAMPLES = `
Examples:
  multifd inspect guest.snapshot
  multifd inspect guest.snapshot --json | jq .machine-type`

export function inspectCommand(program: Command): void {
  program
    .command('inspect')
    .description("tell what a snapshot holds, this command's or QEMU's own (mapped-ram)")
    .argument('<file>', 'the snapshot')
    .addOption(offsetOption('where in FILE the snapshot begins'))
    .option('--json', 'print one JSON object; sizes in bytes')
    .addHelpText('after', EXAMPLES)
    .action((file: string, { json, offset }: { json?: true; offset?: number }) => {
      try {
        const info = inspectSnapshot(file, offset === undefined ? {} : { offset })
        if (json) printJson(kebabKeys(info) as object)
        else process.stdout.write(`${describe(info)}\n`)
      } catch (thrown) {
        const error = MultifdError.from(thrown)
        if (json) printJson({ error: errorObject(error) })
        process.exitCode = failure(error)
      }
    })
}

/** The human form. */
export function describe(info: SnapshotInfo): string {
  return [table(facts(info), 'll'), ramTable(info), deviceTable(info)].join('\n\n')
}

function facts(info: SnapshotInfo): [string, string][] {
  const { fileSize, allocated, machineType, pageSize, capabilities, uuid, uuidFrom, runState, minimumQemu } = info
  const where = uuidFrom === 'sidecar' ? ' (kept beside the file)' : ''
  return [
    ['snapshot', printable(info.path)],
    ['file size', `${bytes(fileSize)}, of which ${bytes(allocated)} on disk`],
    ['machine type', printable(machineType)],
    ['run state', runState === undefined ? 'not told' : printable(runState)],
    ['uuid', uuid === undefined ? 'not told' : `${uuid}${where}`],
    ['page size', `${pageSize} B`],
    ['capabilities', capabilities.map(printable).join(', ')],
    ['loaded by', `QEMU ${minimumQemu.file} or later, from the file (-incoming file:…, capability mapped-ram)`],
    ['', `${anyQemu(minimumQemu.send)}, over a socket (multifd send)`],
    ...(needsKvm(info) ? [['', 'with -accel kvm only: it holds the state of kvmclock'] as [string, string]] : []),
  ]
}

// A QEMU that emulates the processor does not have that device, and refuses sections that it does not know.
function needsKvm({ devices = [] }: SnapshotInfo): boolean {
  return devices.some(({ idstr }) => idstr === 'kvmclock')
}

function anyQemu(version: string | undefined): string {
  return version === undefined ? 'any QEMU that has the machine type' : `QEMU ${version} or later`
}

function ramTable({ ram }: SnapshotInfo): string {
  const row = (name: string, { size, populated }: { size: number; populated: number }): string[] => {
    return [name, bytes(size), bytes(populated)]
  }
  const rows = ram.blocks.map((block) => row(printable(block.idstr), block))
  return table([['RAM block', 'size', 'with data'], ...rows, row('total', ram)], 'lrr')
}

function deviceTable({ devices }: SnapshotInfo): string {
  if (!devices) return 'The file does not describe its device sections.'
  const rows = devices.map(({ idstr, instanceId, versionId, size, early }) => {
    return [printable(idstr), String(instanceId), String(versionId), `${size} B`, early ? 'before RAM' : '']
  })
  const size = devices.reduce((sum, device) => sum + device.size, 0)
  const last = [`${devices.length} sections`, '', '', `${size} B`, '']
  return table([['device section', 'instance', 'version', 'size', ''], ...rows, last], 'lrrrl')
}
