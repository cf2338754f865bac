// Whether a series of samples grows: by its slope and how sure that is, not by its ends.

/** Least squares over equidistant samples. */
export interface Trend {
  /** A sample's step. */
  slope: number
  /** Standard error of the slope. */
  error: number
}

export function trendOf(samples: readonly number[]): Trend {
  const count = samples.length
  if (count < 3) return { slope: 0, error: Number.POSITIVE_INFINITY }
  const meanAt = (count - 1) / 2
  const mean = samples.reduce((sum, value) => sum + value, 0) / count
  const spread = samples.reduce((sum, _, at) => sum + (at - meanAt) ** 2, 0)
  const slope = samples.reduce((sum, value, at) => sum + (at - meanAt) * (value - mean), 0) / spread
  const rest = samples.reduce((sum, value, at) => sum + (value - mean - slope * (at - meanAt)) ** 2, 0)
  return { slope, error: Math.sqrt(rest / (count - 2) / spread) }
}

/**
 * Whether samples grow by more than `limit` from one to the next, beyond doubt: by three standard errors.
 *
 * The first of them are of a process that still warms up: `skip` leaves them out.
 */
export function grows(samples: readonly number[], limit: number, skip = Math.ceil(samples.length / 5)): boolean {
  const { slope, error } = trendOf(samples.slice(skip))
  return slope - 3 * error > limit
}
