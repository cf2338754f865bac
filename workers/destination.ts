// The destination's coordinator thread: one Piscina task for the length of a migration.

import type { ThreadOutcome } from '../src/channel/thread.js'
import type { Coordinator } from '../src/migration/coordinator.js'
import type { TargetPlan } from '../src/migration/destination.js'
import { type DestinationTask, runDestination } from '../src/migration/destination-coordinator.js'
import { type LoadTarget, ProgramTarget } from '../src/migration/load-target.js'
import { type GuestImage, MemoryTarget } from '../src/migration/memory-target.js'
import { RamBlock } from '../src/ram/block.js'
import { SnapshotTarget } from '../src/snapshot/target.js'

type Task = DestinationTask & { target: TargetPlan }

export default function run(task: Task): ThreadOutcome {
  return runDestination(task, (coordinator) => makeTarget(task, coordinator))
}

function makeTarget({ target, toProgram }: Task, coordinator: Coordinator): LoadTarget {
  if (target.kind === 'snapshot') return new SnapshotTarget(target.path, target.machineType, target.offset)
  if (target.kind === 'memory') {
    const given = target.blocks.map((handle) => RamBlock.from(handle))
    const completed = (image: GuestImage): void => toProgram.postMessage({ type: 'image', image })
    return new MemoryTarget(target.machineType, given, completed)
  }
  const blocks = target.blocks.map((handle) => RamBlock.from(handle))
  return new ProgramTarget(blocks, target.machineType, (message) => coordinator.ask(message))
}
