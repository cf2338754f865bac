// A source made by hand: the steps of a migration one at a time, so that a test can leave any of them out or spoil it.

import { RETURN_MESSAGE } from '../../../src/wire/return-path.js'
import type { ConfigurationSubsections } from '../../../src/wire/stream.js'
import {
  type Dialect,
  initialPacket,
  type ListedBlock,
  openReturnPath,
  PAGE,
  PER_PACKET,
  packet,
  pageOf,
  ramSection,
  ramStart,
  streamEnd,
  streamHead,
  syncPacket,
} from './stream.js'
import { Wire } from './wire.js'

export interface HandSourceOptions {
  /** Default 2; 0 for the single-channel stream. */
  channels?: number
  blocks: ListedBlock[]
  machineType?: string
  dialect?: Dialect
  /** Default true. */
  returnPath?: boolean
  uuid?: string
  subsections?: ConfigurationSubsections
}

export class HandSource {
  readonly main: Wire
  readonly channels: Wire[] = []
  readonly uri: string
  readonly options: HandSourceOptions
  readonly dialect: Dialect

  private constructor(uri: string, options: HandSourceOptions, main: Wire) {
    this.uri = uri
    this.options = options
    this.main = main
    this.dialect = options.dialect ?? 'per-round'
  }

  /** Connects the main channel; nothing is said on it yet. */
  static async connect(uri: string, options: HandSourceOptions): Promise<HandSource> {
    return new HandSource(uri, options, await Wire.to(uri))
  }

  /** Opens channels and says who they are: by default as many as were agreed on, with the ids that belong to them. */
  async openChannels(ids = Array.from({ length: this.options.channels ?? 2 }, (_, id) => id)): Promise<void> {
    for (const id of ids) (await this.openChannel()).send(initialPacket(id, this.options.uuid))
  }

  /** Opens one more channel and says nothing. */
  async openChannel(): Promise<Wire> {
    const channel = await Wire.to(this.uri)
    this.channels.push(channel)
    return channel
  }

  /** Magic, configuration, and the return path. */
  head(): void {
    const { machineType = 'multifd', returnPath = true, subsections } = this.options
    this.main.send(streamHead(machineType, subsections))
    if (returnPath) this.main.send(openReturnPath())
  }

  /** The list of blocks, the first mark and the first SYNC. */
  setUp(): void {
    this.main.send(ramStart(this.options.blocks, this.dialect))
    this.sync()
  }

  /** Everything up to the first barrier. */
  async begin(): Promise<void> {
    await this.openChannels()
    this.head()
    this.setUp()
  }

  /** SYNC on every channel, or on some. */
  sync(which = this.channels.map((_, channel) => channel)): void {
    for (const channel of which) this.channels[channel]!.send(syncPacket())
  }

  /** Every page of every block, full of one byte, on the channels in turn. */
  everyPage(byte: number): void {
    let turn = 0
    for (const { idstr, size } of this.options.blocks) {
      for (let first = 0; first < size; first += PER_PACKET * PAGE) {
        const count = Math.min(PER_PACKET, (size - first) / PAGE)
        const pages = Array.from({ length: count }, (_, at) => [first + at * PAGE, pageOf(byte)] as const)
        this.channels[turn++ % this.channels.length]!.send(packet({ idstr, pages }))
      }
    }
  }

  /** The mark at the end of a pass, and SYNC on every channel. */
  barrier(type: 'part' | 'end' = 'part'): void {
    this.main.send(ramSection(type, [], this.dialect))
    this.sync()
  }

  /** The last barrier and the end of the stream. */
  finish(): void {
    this.barrier('end')
    this.main.send(streamEnd())
  }

  /** What the destination says at the end: 0 for success. */
  async word(): Promise<number> {
    for (;;) {
      const head = await this.main.take(4)
      const body = await this.main.take(head.readUInt16BE(2))
      if (head.readUInt16BE(0) === RETURN_MESSAGE.shut) return body.readUInt32BE(0)
    }
  }

  /** Closes the channels and the main channel in order. */
  close(): void {
    for (const channel of this.channels) channel.close()
    this.main.close()
  }

  /** Leaves nothing open, whatever the state. */
  destroy(): void {
    for (const wire of [this.main, ...this.channels]) wire.socket.destroy()
  }
}
