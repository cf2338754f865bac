// Clients that write as fast as they can, remember every write that was acknowledged, and look for all of them.
//
//   node dist/examples/store/client.js PORT [--clients N] [--pipeline N] [--keys N] [--seconds N]
//
// Each client has keys of its own and writes them in turn, `pipeline` requests under way at once; every fourth request
// reads a key back at once. A connection that ends is made anew, and what had no reply is asked again: such a write may
// have happened or not. At the end every key is read: it must hold the last write that was acknowledged.

import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

export interface LoadOptions {
  port: number
  clients: number
  /** Requests of each that are under way at once. */
  pipeline: number
  /** Keys of each. */
  keys: number
}

export interface LoadReport {
  requests: number
  acknowledgedWrites: number
  reconnects: number
  /** Longest time that a client got no reply, ms. */
  longestPause: number
  /** Requests that got an error, and keys that do not hold what they must: in words, the first of them. */
  wrong: string[]
  wrongCount: number
}

const RECONNECT_MS = 1
const GIVE_UP_MS = 20_000
const READ_EVERY = 4
const WRONG_KEPT = 20
const VALUE_MAX = 600

interface Request {
  key: number
  /** What is written; undefined: it is read. */
  stamp: number | undefined
}

/** A value that tells whose it is, and is of its own length. */
function contentOf(key: string, stamp: number): string {
  return `${key}=${stamp};`.padEnd(40 + ((stamp * 97) % VALUE_MAX), 'x')
}

export class Load {
  readonly #clients: LoadClient[]
  readonly #running: Promise<void>[]

  constructor(options: LoadOptions) {
    this.#clients = Array.from({ length: options.clients }, (_, id) => new LoadClient(id, options))
    this.#running = this.#clients.map((client) => client.run())
  }

  /** Longest time without a reply since the last call, ms. */
  takeLongestPause(): number {
    return Math.max(...this.#clients.map((client) => client.takeLongestPause()))
  }

  /** Ends the load, and reads every key. */
  async finish(): Promise<LoadReport> {
    for (const client of this.#clients) client.stop()
    await Promise.all(this.#running)
    const sum = (of: (client: LoadClient) => number): number => this.#clients.reduce((all, one) => all + of(one), 0)
    return {
      requests: sum(({ replies }) => replies),
      acknowledgedWrites: sum(({ acknowledged }) => acknowledged),
      reconnects: sum(({ reconnects }) => reconnects),
      longestPause: Math.max(...this.#clients.map(({ longestPause }) => longestPause)),
      wrong: this.#clients.flatMap(({ wrong }) => wrong).slice(0, WRONG_KEPT),
      wrongCount: sum(({ wrongCount }) => wrongCount),
    }
  }
}

class LoadClient {
  readonly #id: number
  readonly #options: LoadOptions
  readonly #written: Float64Array
  #queue: Request[] = []
  #next = 0
  #stopped = false
  #checking = false
  #lastReply = performance.now()
  #recentPause = 0
  replies = 0
  acknowledged = 0
  reconnects = -1
  longestPause = 0
  wrongCount = 0
  readonly wrong: string[] = []

  constructor(id: number, options: LoadOptions) {
    this.#id = id
    this.#options = options
    // The stamp of the last acknowledged write of each key; 0: none.
    this.#written = new Float64Array(options.keys)
  }

  stop(): void {
    this.#stopped = true
  }

  takeLongestPause(): number {
    const longest = this.#recentPause
    this.#recentPause = 0
    return longest
  }

  async run(): Promise<void> {
    this.#lastReply = performance.now()
    while (!(this.#checking && this.#next === this.#options.keys && this.#queue.length === 0)) {
      const socket = await this.#connect()
      this.reconnects++
      const replies = new ReplyReader((reply) => this.#hear(reply))
      socket.on('data', (chunk) => {
        replies.push(chunk)
        this.#fill(socket)
      })
      // What had no reply is asked again, in the same order.
      this.#send(socket, this.#queue)
      this.#fill(socket)
      await once(socket, 'close')
    }
  }

  // The port is there all the time; a refusal is passed on to the report.
  async #connect(): Promise<Socket> {
    for (;;) {
      const socket = createConnection({ port: this.#options.port, host: '127.0.0.1', noDelay: true })
      try {
        await once(socket, 'connect')
        socket.on('error', () => {})
        return socket
      } catch (error) {
        this.#note(`connect: ${(error as Error).message}`)
        if (performance.now() - this.#lastReply > GIVE_UP_MS) throw error
        await sleep(RECONNECT_MS)
      }
    }
  }

  #fill(socket: Socket): void {
    const { pipeline, keys } = this.#options
    const requests: Request[] = []
    while (this.#queue.length + requests.length < pipeline) {
      if (this.#stopped && !this.#checking) {
        if (this.#queue.length + requests.length > 0) break
        // All that was under way has its reply: now every key once.
        this.#checking = true
        this.#next = 0
      }
      if (this.#checking && this.#next === keys) break
      const turn = this.#next++
      const read = this.#checking || turn % READ_EVERY === READ_EVERY - 1
      // A read looks at a key that was written some requests ago.
      const key = this.#checking ? turn : (read ? Math.max(0, turn - READ_EVERY) : turn) % keys
      requests.push({ key, stamp: read ? undefined : turn + 1 })
    }
    this.#queue.push(...requests)
    this.#send(socket, requests)
    if (this.#queue.length === 0) socket.end()
  }

  #send(socket: Socket, requests: Request[]): void {
    if (requests.length === 0) return
    const words = requests.map(({ key, stamp }) => {
      const name = this.#name(key)
      return stamp === undefined ? encode('GET', name) : encode('SET', name, contentOf(name, stamp))
    })
    socket.write(words.join(''))
  }

  #hear(reply: string | undefined): void {
    const now = performance.now()
    const pause = now - this.#lastReply
    this.#lastReply = now
    this.longestPause = Math.max(this.longestPause, pause)
    this.#recentPause = Math.max(this.#recentPause, pause)
    this.replies++
    const { key, stamp } = this.#queue.shift()!
    if (stamp === undefined) {
      // Requests of a client are run in order: what a read finds is the last write before it.
      const last = this.#written[key]!
      const expected = last === 0 ? undefined : contentOf(this.#name(key), last)
      if (reply !== expected)
        this.#note(`${this.#name(key)} holds ${reply?.slice(0, 60)}, not ${expected?.slice(0, 60)}`)
    } else if (reply === 'OK') {
      this.#written[key] = stamp
      this.acknowledged++
    } else this.#note(`${this.#name(key)} was not written: ${reply}`)
  }

  #name(key: number): string {
    return `client:${this.#id}:${key}`
  }

  #note(text: string): void {
    this.wrongCount++
    if (this.wrong.length < WRONG_KEPT) this.wrong.push(text)
  }
}

/** A request as a client sends it. Text of single bytes. */
export function encode(...words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join('')}`
}

/** Replies without arrays: text, or undefined for a missing value. Errors are text that begins with `-`. */
export class ReplyReader {
  readonly #hear: (reply: string | undefined) => void
  #text = ''

  constructor(hear: (reply: string | undefined) => void) {
    this.#hear = hear
  }

  push(chunk: Buffer): void {
    const text = this.#text + chunk.toString('latin1')
    let at = 0
    for (;;) {
      const end = text.indexOf('\r\n', at)
      if (end < 0) break
      const head = text.slice(at + 1, end)
      if (text[at] !== '$') this.#hear(text[at] === '-' ? `-${head}` : head)
      else if (head === '-1') this.#hear(undefined)
      else {
        const length = Number(head)
        if (end + 2 + length + 2 > text.length) break
        this.#hear(text.slice(end + 2, end + 2 + length))
        at = end + 2 + length + 2
        continue
      }
      at = end + 2
    }
    this.#text = text.slice(at)
  }
}

/** Asks one thing on a connection of its own. */
export async function ask(port: number, ...words: string[]): Promise<string | undefined> {
  const socket = createConnection({ port, host: '127.0.0.1' })
  try {
    return await new Promise((resolve, reject) => {
      const replies = new ReplyReader(resolve)
      socket.on('data', (chunk) => replies.push(chunk))
      socket.on('error', reject)
      socket.on('close', () => reject(new Error(`no answer to ${words[0]}`)))
      socket.write(encode(...words))
    })
  } finally {
    socket.destroy()
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      clients: { type: 'string', default: '8' },
      pipeline: { type: 'string', default: '16' },
      keys: { type: 'string', default: '2000' },
      seconds: { type: 'string', default: '10' },
    },
  })
  const port = Number(positionals[0] ?? 6379)
  await ask(port, 'PING')
  const load = new Load({
    port,
    clients: Number(values.clients),
    pipeline: Number(values.pipeline),
    keys: Number(values.keys),
  })
  await sleep(Number(values.seconds) * 1000)
  const report = await load.finish()
  const { requests, acknowledgedWrites, reconnects, longestPause, wrong, wrongCount } = report
  console.log(`${requests} requests, ${acknowledgedWrites} acknowledged writes, ${reconnects} reconnects`)
  console.log(
    `longest pause ${longestPause.toFixed(1)} ms; ${wrongCount === 0 ? 'nothing is lost' : `${wrongCount} WRONG`}`,
  )
  for (const text of wrong) console.log(`  ${text}`)
  process.exitCode = wrongCount === 0 ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main().catch((error: Error) => {
    console.error(error.message)
    process.exitCode = 1
  })
}
