// What the walk goes over.

import { FAULT_POINTS, type FaultName, type FaultPoint, type FaultSide } from '../../src/faults.js'
import { noKernelLog, noWriteTracker } from '../support/kernel.js'
import { isMethod, type MethodName, reaches } from './methods.js'
import type { Case } from './walk.js'

// Places that every migration comes to often enough.
const OFTEN: readonly FaultName[] = [
  'send-fails',
  'send-stalls',
  'recv-fails',
  'recv-stalls',
  'channel-dies',
  'main-send-fails',
  'write-protect-fails',
  'snapshot-dies',
]
const LATEST = 4
// Where OpenSSL makes the calls, they are broken in another way.
const OVER_TLS: Case[] = [
  ['send-short', 'source'],
  ['recv-short', 'destination'],
  ['calls-interrupted', 'source'],
  ['calls-interrupted', 'destination'],
  ['calls-put-off', 'source'],
  ['calls-put-off', 'destination'],
].map(([point, side]) => ({ point: point as FaultName, side: side as FaultSide, method: 'tls', at: 1 }))
// The receive after a channel's first header and its first SYNC.
const IN_A_PACKET = 5

/** Every point × method × side that is reached, each at a time that the seed decides. */
export function allCases(points: readonly FaultName[], methods: readonly MethodName[], seed: number): Case[] {
  return points.flatMap((point) => {
    // Its own: a point's times are the same whatever else is walked.
    const random = randomOf(Math.imul(seed, 0x9e3779b1) ^ Math.imul(FAULT_POINTS[point].number, 0x85ebca6b))
    return methods.flatMap((method) => {
      const sides = FAULT_POINTS[point].sides.filter((side) => reaches(method, point, side))
      return sides.map((side) => {
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
    const method: MethodName = isMethod(needs) ? needs : 'none'
    return sides.map((side) => ({ point, side, method, at: point === 'recv-ends' ? IN_A_PACKET : 1 }))
  })
  // Nobody else knows of the file.
  const died: Case = { point: 'main-dies', side: 'destination', method: 'none', at: 1, intoFile: true }
  // Where no writer waits yet, and where one may.
  const later: Case = { point: 'write-protect-fails', side: 'snapshot', method: 'none', at: 4 }
  return [...once, ...OVER_TLS, died, later]
}

/** Why this machine does not come to a point; undefined where it does. */
export function missingHere({ point, side }: Case): string | undefined {
  const { needs }: FaultPoint = FAULT_POINTS[point]
  const missing = side === 'snapshot' ? noWriteTracker : needs === 'kernel-log' && noKernelLog
  return missing || undefined
}

function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}
