// Who keeps note of the descriptors that a thread has open, so that they can be closed when the thread is no more.

/** Where a thread's descriptors are noted. */
export interface DescriptorNotes {
  add(fd: number): void
  remove(fd: number): void
}

let notes: DescriptorNotes | undefined

/** Has the descriptors that this thread opens and closes noted from now on, or with undefined no more. */
export function noteDescriptors(where: DescriptorNotes | undefined): void {
  notes = where
}

/** Notes one as open; returns it. */
export function noteOpened(fd: number): number {
  notes?.add(fd)
  return fd
}

/** Notes one as closed: before it is, for its number is anyone's then. */
export function noteClosed(fd: number): void {
  notes?.remove(fd)
}
