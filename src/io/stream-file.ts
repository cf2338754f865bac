// A migration's stream in a file: the descriptor that it is read from or written to, at its place.

import { closeSync, fstatSync, ftruncateSync, openSync, rmSync, statSync } from 'node:fs'
import { MultifdError } from '../errors.js'
import { seekTo, syncFile, withFile } from '../os/file.js'

/** Where in which file a stream is; `offset` in bytes. */
export interface StreamPlace {
  path: string
  offset: number
}

/** @throws MultifdError ERR_MULTIFD_FILE when there is no file to read a stream from, or it ends before the stream's place */
export function checkStreamFile({ path, offset }: StreamPlace): void {
  const { size, file } = withFile(path, () => {
    const found = statSync(path)
    return { size: found.size, file: found.isFile() }
  })
  if (file && size <= offset) {
    throw new MultifdError('ERR_MULTIFD_FILE', `${path}: it has ${size} bytes, and the stream is to begin at ${offset}`)
  }
}

/** Opens a file to read its stream. @returns the descriptor, which is the caller's @throws MultifdError ERR_MULTIFD_FILE */
export function openToRead(place: StreamPlace): number {
  checkStreamFile(place)
  return openAt(place, 'r')
}

/**
 * Opens a file to write a stream into it, as QEMU does: what lies before the stream's place stays, what lies behind goes.
 *
 * @returns the descriptor, which is the caller's
 * @throws MultifdError ERR_MULTIFD_FILE
 */
export function openToWrite(place: StreamPlace): number {
  // Appending is writing at the place, once nothing lies behind it.
  return openAt(place, 'a', (fd) => {
    if (fstatSync(fd).isFile()) ftruncateSync(fd, place.offset)
  })
}

/** Has what was written to a descriptor on its disk. @throws MultifdError ERR_MULTIFD_FILE */
export function keepStream({ path }: StreamPlace, fd: number): void {
  withFile(path, () => {
    if (fstatSync(fd).isFile()) syncFile(fd, path)
  })
}

/** Takes what was written of a stream back: what lay before it stays, and a file without anything before it goes. */
export function dropStream({ path, offset }: StreamPlace): void {
  withFile(path, () => {
    if (!statSync(path, { throwIfNoEntry: false })?.isFile()) return
    if (offset === 0) return rmSync(path, { force: true })
    const fd = openSync(path, 'r+')
    try {
      ftruncateSync(fd, offset)
    } finally {
      closeSync(fd)
    }
  })
}

function openAt({ path, offset }: StreamPlace, flags: 'r' | 'a', prepare: (fd: number) => void = () => {}): number {
  return withFile(path, () => {
    const fd = openSync(path, flags)
    try {
      prepare(fd)
      if (offset > 0) seekTo(fd, offset, path)
      return fd
    } catch (error) {
      closeSync(fd)
      throw error
    }
  })
}
