// What the walk goes over.

import { FAULT_POINTS, type FaultName, type FaultPoint } from '../../src/faults.js'
import { noKernelLog } from '../support/kernel.js'
import { type MethodName, reaches } from './methods.js'
import type { Case } from './walk.js'

// Places that every migration comes to often enough.
const OFTEN: readonly FaultName[] = [
  'send-fails',
  'send-stalls',
  'recv-fails',
  'recv-stalls',
  'channel-dies',
  'main-send-fails',
]
const LATEST = 4
// The receive after a channel's first header and its first SYNC.
const IN_A_PACKET = 5

/** Every point × method × side that is reached, each at a time that the seed decides. */
export function allCases(points: readonly FaultName[], methods: readonly MethodName[], seed: number): Case[] {
  const random = randomOf(seed)
  return points.flatMap((point) => {
    return methods
      .filter((method) => reaches(method, point))
      .flatMap((method) => {
        return FAULT_POINTS[point].sides.map((side) => {
          const at = point === 'recv-ends' ? IN_A_PACKET : OFTEN.includes(point) ? 1 + random(LATEST) : 1
          return { point, side, method, at }
        })
      })
  })
}

/** Every point once on each side that has it, by one method. */
export function shortCases(): Case[] {
  const points = Object.keys(FAULT_POINTS) as FaultName[]
  const once = points.flatMap((point) => {
    const { needs, sides }: FaultPoint = FAULT_POINTS[point]
    const method: MethodName = needs === 'tls' || needs === 'zero-copy' ? needs : 'none'
    return sides.map((side) => ({ point, side, method, at: point === 'recv-ends' ? IN_A_PACKET : 1 }))
  })
  // Nobody else knows of the file.
  const died: Case = { point: 'main-dies', side: 'destination', method: 'none', at: 1, intoFile: true }
  return [...once, died]
}

/** Why this machine does not come to a point; undefined where it does. */
export function missingHere(name: FaultName): string | undefined {
  const { needs }: FaultPoint = FAULT_POINTS[name]
  return needs === 'kernel-log' && noKernelLog ? noKernelLog : undefined
}

function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
