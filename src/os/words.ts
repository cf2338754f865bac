// 64-bit words of kernel structures, little-endian, as JavaScript numbers.

const HIGH = 2 ** 32

/** @param value a whole number below 2^53 */
export function putWord(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % HIGH, true)
  view.setUint32(at + 4, Math.floor(value / HIGH), true)
}

/** Exact up to 2^53: addresses and sizes are below. */
export function takeWord(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * HIGH
}
