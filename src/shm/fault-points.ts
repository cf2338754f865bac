// Fault points that are armed, in shared memory: every thread of the migration sees them, and how often they happened.

import { MultifdError } from '../errors.js'
import { FAULT_POINTS, type FaultName, type FaultPoint, type FaultSide } from '../faults.js'

/** A point, and from which time on it happens: `send-fails` is `send-fails@1`. */
export type FaultOrder = FaultName | `${FaultName}@${number}`

/** Armed from outside: `send-fails@3`, `destination:recv-ends`; several with commas between. */
export const FAULTS_VARIABLE = 'MULTIFD_FAULTS'

// Words of one point: the times that are left until it happens, 0 for never; and how often it has happened.
const LEFT = 0
const HAPPENED = 1
const WORDS = 2

export class FaultPoints {
  /** What crosses to a thread. */
  readonly words: Int32Array<SharedArrayBuffer>

  /**
   * @param orders what is armed; or the words of another thread's
   * @throws MultifdError ERR_MULTIFD_ARGUMENT for what is no point
   */
  constructor(orders: readonly FaultOrder[] | Int32Array<SharedArrayBuffer>) {
    if (orders instanceof Int32Array) {
      this.words = orders
      return
    }
    const most = Math.max(...Object.values(FAULT_POINTS).map(({ number }) => number))
    this.words = new Int32Array(new SharedArrayBuffer(4 * WORDS * (most + 1)))
    for (const order of orders) this.#arm(order)
  }

  /** What {@link FAULTS_VARIABLE} arms of a side; undefined for nothing. @throws MultifdError ERR_MULTIFD_ARGUMENT */
  static fromEnvironment(side: FaultSide, text = process.env[FAULTS_VARIABLE]): FaultPoints | undefined {
    if (!text) return undefined
    const orders = text.split(',').flatMap((item) => {
      const [, wanted, order] = /^(?:(source|destination|snapshot):)?(.*)$/.exec(item.trim())!
      const { sides } = pointOf(order!)
      return (wanted ?? side) === side && sides.includes(side) ? [order as FaultOrder] : []
    })
    return orders.length === 0 ? undefined : new FaultPoints(orders)
  }

  /** @throws MultifdError ERR_MULTIFD_ARGUMENT for a point that this side does not have */
  checkSide(side: FaultSide): void {
    for (const [name, { sides }] of Object.entries<FaultPoint>(FAULT_POINTS)) {
      if (!this.armed(name as FaultName) || sides.includes(side)) continue
      throw new MultifdError('ERR_MULTIFD_ARGUMENT', `fault point '${name}' is the ${sides[0]}'s`)
    }
  }

  #arm(order: string): void {
    const { number } = pointOf(order)
    Atomics.store(this.words, WORDS * number + LEFT, Number(order.split('@')[1] ?? 1))
  }

  /** Lets nothing happen any more. */
  disarm(): void {
    for (let at = LEFT; at < this.words.length; at += WORDS) Atomics.store(this.words, at, 0)
  }

  /** Whether it is still to happen. For a loop that is made once, and then asks {@link happens}. */
  armed(name: FaultName): boolean {
    return Atomics.load(this.words, WORDS * FAULT_POINTS[name].number + LEFT) !== 0
  }

  /** How often it has happened. */
  happened(name: FaultName): number {
    return Atomics.load(this.words, WORDS * FAULT_POINTS[name].number + HAPPENED)
  }

  /** At the place itself: counts this time, and says whether it happens now. */
  happens(name: FaultName): boolean {
    const { number, lasts }: FaultPoint = FAULT_POINTS[name]
    const at = WORDS * number + LEFT
    for (;;) {
      const left = Atomics.load(this.words, at)
      if (left === 0) return false
      if (left > 1 || !lasts) {
        if (Atomics.compareExchange(this.words, at, left, left - 1) !== left) continue
        if (left > 1) return false
      }
      Atomics.add(this.words, WORDS * number + HAPPENED, 1)
      return true
    }
  }

  /** At a place where the engine itself fails. @throws MultifdError the point's own code, where it happens now */
  fail(name: FaultName): void {
    if (!this.happens(name)) return
    const { code, breaks }: FaultPoint = FAULT_POINTS[name]
    const own = typeof code === 'string' && code !== 'waits' ? code : 'ERR_MULTIFD_INTERNAL'
    throw new MultifdError(own, `${name}: ${breaks}`)
  }
}

function pointOf(order: string): FaultPoint {
  const [, name = '', times] = /^([a-z-]+)(?:@(.*))?$/.exec(order) ?? []
  if (Object.hasOwn(FAULT_POINTS, name) && (times === undefined || /^[1-9]\d{0,8}$/.test(times))) {
    return FAULT_POINTS[name as FaultName]
  }
  throw new MultifdError('ERR_MULTIFD_ARGUMENT', `there is no fault point '${order}': docs/faults.md has them`)
}
