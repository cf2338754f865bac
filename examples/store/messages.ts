// What the supervisor and the store's two processes say to each other.

/** Figures of one move. Times in ms. */
export interface Move {
  passes: number
  totalTime: number
  /** By the migration's statistics. */
  downtime: number
  /** From the last request that the old process ran to the first that the new one could run. */
  pause: number
  transferred: number
}

export type Order =
  /** Runs requests: on an empty table, or on the one that is there. */
  | { type: 'serve'; fresh: boolean }
  /** A client's connection comes with it. */
  | { type: 'client' }
  /** Gets ready to take the store over. */
  | { type: 'receive' }
  /** Moves the store there. */
  | { type: 'leave'; uri: string }

export type Word =
  | { type: 'ready' }
  /** To `receive`. */
  | { type: 'listening'; uri: string }
  /** All of the store is here, and is not served yet. */
  | { type: 'arrived' }
  /** To `leave`: requests wait now. `at` is the system's monotonic clock, in ms. */
  | { type: 'halted'; at: number }
  /** The other process has everything; no request is run here any more. */
  | { type: 'left'; figures: Omit<Move, 'pause'> }
  /** To `serve`. */
  | { type: 'serving'; at: number }
  /** A client has asked for the store to move. */
  | { type: 'relocate' }
  /** The move has failed. Whoever served goes on. */
  | { type: 'failed'; message: string }

/** How both processes are made. */
export interface Settings {
  /** Bytes of the block. */
  size: number
  channels: number
  downtimeLimit: number
  /** Bytes a second, 0 for no limit. */
  maxBandwidth: number
  /** Path of the socket at which whoever serves the store answers QMP. */
  qmp?: string
}
