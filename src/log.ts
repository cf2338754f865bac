// The part of a pino logger that is used, and how threads log: each line is sent to the program's thread, and to the caller's
// logger there.

/** A pino logger is one. What is optional may be missing from another: there are no children then, and no trace. */
export interface Logger {
  trace?(fields: object, message: string): void
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  child?(bindings: object): Logger
  isLevelEnabled?(level: string): boolean
}

const quiet = (): void => {}

/** Says nothing: what is used where the caller gives no logger. */
export const noLogger: Logger = { debug: quiet, info: quiet, warn: quiet, error: quiet, isLevelEnabled: () => false }

/** A line of a thread's. */
export interface LogLine {
  level: 'trace' | 'debug'
  /** When it was said, ms since 1970. */
  at: number
  fields: object
  message: string
}

/** What a thread logs with, where somebody wants to hear it. */
export interface LogTask {
  port: { postMessage(line: LogLine): void }
  trace: boolean
}

/** In a thread. What is not wanted costs a look at a boolean, which loops ask before they make a line's fields. */
export class ThreadLog {
  /** Whether a line a packet is wanted. */
  readonly tracing: boolean
  readonly #task: LogTask | undefined

  constructor(task: LogTask | undefined) {
    this.#task = task
    this.tracing = task?.trace ?? false
  }

  debug(fields: object, message: string): void {
    this.#say('debug', fields, message)
  }

  trace(fields: object, message: string): void {
    if (this.tracing) this.#say('trace', fields, message)
  }

  #say(level: LogLine['level'], fields: object, message: string): void {
    this.#task?.port.postMessage({ level, at: performance.timeOrigin + performance.now(), fields, message })
  }
}
