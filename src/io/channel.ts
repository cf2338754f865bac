// What carries a migration's bytes, whatever it is made of.

import type { IoVector } from './iovec.js'

/** What a channel can do beyond reading and writing. */
export type ChannelFeature = 'peek' | 'shutdown' | 'seekable' | 'zeroCopySend' | 'sendFile'

/**
 * Asked by a channel while it waits, about every 100 ms. Throwing ends the wait: because the migration was stopped, or
 * because the wait was too long.
 *
 * @param waitedMs since the last byte moved
 * @param inside whether a transfer has begun and is not whole
 */
export type WaitHook = (waitedMs: number, inside: boolean) => void

/**
 * A connection. A partial transfer, an end of file and an error are three different things: fewer bytes than asked for,
 * the end sentinel 0, and a throw.
 */
export interface Channel {
  /** `main`, or the multifd channel's number. */
  readonly name: 'main' | number
  readonly features: ReadonlySet<ChannelFeature>

  /**
   * Reads until the list is full or the stream ends; advances the list.
   *
   * @param boundary number of bytes after which the stream may rest: a wait there is not a stall
   * @returns bytes read, fewer than asked for only at the end of the stream
   * @throws MultifdError ERR_MULTIFD_IO, or whatever the wait hook throws
   */
  readFull(into: IoVector, boundary: number): number

  /**
   * Reads at least one byte.
   *
   * @returns bytes read; 0 at the end of the stream
   */
  readSome(into: IoVector): number

  /**
   * Takes up to `length` bytes (512 at most) that are there already, without waiting.
   *
   * @returns undefined when there are none; an empty array at the end of the stream
   */
  readNow(length: number): Uint8Array | undefined

  /** Waits up to `timeoutMs` for something to come, or the end. Returns whether it did. */
  waitReadable(timeoutMs: number): boolean

  /**
   * Writes the whole list; empties it.
   *
   * @param more whether something follows at once, so that the kernel may wait with it
   * @throws MultifdError ERR_MULTIFD_CLOSED when the peer is gone, ERR_MULTIFD_IO, or whatever the wait hook throws
   */
  writeFull(from: IoVector, more?: boolean): void

  /**
   * Writes bytes [position, position + length) of an open file, from where the kernel caches it. For channels with the
   * feature `sendFile`, and files that nobody changes: what is written meanwhile may go instead.
   *
   * @returns whether it did; false, with nothing written, where the file's system does not have it
   * @throws MultifdError as {@link writeFull}; ERR_MULTIFD_FILE where the file ends too early or can not be read
   */
  writeFile(file: number, position: number, length: number): boolean

  /**
   * Lets {@link writeZeroCopy} be used.
   *
   * @param most sends that may be under way at a time
   * @throws MultifdError ERR_MULTIFD_UNSUPPORTED where the feature `zeroCopySend` is missing
   */
  enableZeroCopy(most: number): void

  /**
   * Writes the whole list, and what follows its head without copying: the kernel reads that memory until
   * {@link flushZeroCopy} returns. For channels with the feature `zeroCopySend` that were told to.
   *
   * @param head bytes of the first entry, which is copied
   * @throws MultifdError as {@link writeFull}; ERR_MULTIFD_IO with ENOBUFS where no more memory may be locked
   */
  writeZeroCopy(from: IoVector, head: number): void

  /**
   * Waits until the kernel is through with everything that was sent without copying.
   *
   * @returns sends since the flush before that the kernel copied after all
   * @throws MultifdError ERR_MULTIFD_CLOSED when the peer is gone, ERR_MULTIFD_IO, or whatever the wait hook throws
   */
  flushZeroCopy(): number

  /** Tells the peer that nothing more will be written, where the transport has a word for it. */
  end(): void

  /** Ends both directions and wakes a thread that waits in a call. Callable from any thread. */
  shutdown(): void

  /** Gives the descriptor back. Idempotent. */
  close(): void
}
