// Pairings of two Node processes: a source that lasts, and a new destination for every run.

import { Child } from '../child.js'
import { metered, ramOf } from '../meter.js'
import type { Measurement, Pairing, Session, Shape } from '../pairing.js'
import type { DestinationCalls, SourceCalls } from '../processes/calls.js'

export class NodePairing implements Pairing {
  readonly name: string
  readonly label: string
  readonly memories = ['touched', 'untouched'] as const
  readonly #session: Session
  readonly #entries: { source: string; destination: string }
  #source: Child<SourceCalls> | undefined

  /** @param entries files of bench/processes */
  constructor(
    session: Session,
    { name, label }: { name: string; label: string },
    entries: { source: string; destination: string },
  ) {
    this.#session = session
    this.name = name
    this.label = label
    this.#entries = entries
  }

  available(): undefined {}

  async run({ channels, memory, method }: Shape): Promise<Measurement> {
    const { bytes } = this.#session
    const source = await this.#prepared()
    await using destination = new Child<DestinationCalls>(this.#entries.destination)
    await destination.call('prepare', { bytes, touched: memory === 'touched' })
    const result = await metered(
      { source: source.pid, destination: destination.pid },
      ramOf(this.#session, memory),
      () => destination.call('listen', { channels, method }),
      async (uri, begins) => {
        source.onSetUp = begins
        const [times] = await Promise.all([
          source.call('send', { uri, channels, method }),
          destination.call('completed', null),
        ])
        return times
      },
    )
    const [sent, came] = [await source.call('digest', null), await destination.call('digest', null)]
    if (sent !== came) throw new Error('what came is not what was sent')
    return result
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source?.[Symbol.asyncDispose]()
  }

  async #prepared(): Promise<Child<SourceCalls>> {
    if (!this.#source) {
      this.#source = new Child<SourceCalls>(this.#entries.source)
      await this.#source.call('prepare', this.#session)
    }
    return this.#source
  }
}
