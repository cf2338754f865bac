// What threads of another process of this machine have used of a processor.

import { readFileSync } from 'node:fs'

const COMM_MAX = 15
/** USER_HZ of every architecture that this runs on. */
const TICK_MS = 10

/**
 * Processor time of a thread so far, ms; undefined where there is none of that id and name: it has ended, or the process is on
 * another machine or in another namespace of ids.
 *
 * Source: proc_pid_stat(5).
 */
export function processorTime(threadId: number, name: string): number | undefined {
  try {
    const text = readFileSync(`/proc/${threadId}/task/${threadId}/stat`, 'utf8')
    // The name may have spaces and parentheses.
    const end = text.lastIndexOf(')')
    const comm = text.slice(text.indexOf('(') + 1, end)
    // A QEMU names its threads with `-name debug-threads=on` only.
    if (comm !== name.slice(0, COMM_MAX) && !comm.startsWith('qemu')) return undefined
    const fields = text.slice(end + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS
  } catch {
    return undefined
  }
}
