// QMP's errors: a class that programs go by, and a text.

/** QMP's classes. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotFound'

export class QmpError extends Error {
  override readonly name = 'QmpError'
  readonly errorClass: QmpErrorClass

  constructor(message: string, errorClass: QmpErrorClass = 'GenericError') {
    super(message)
    this.errorClass = errorClass
  }
}
