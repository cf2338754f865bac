// The part of a pino logger that this package uses.

export interface Logger {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

const quiet = (): void => {}

/** Says nothing: what is used where the caller gives no logger. */
export const noLogger: Logger = { debug: quiet, info: quiet, warn: quiet, error: quiet }
