// A key-value store that moves between two processes while its clients go on. It speaks the protocol of Redis.
//
//   npm run build && node dist/examples/store/main.js [--port N] [--size MIB] [--channels N] [--downtime-limit MS] [--qmp PATH] [--json]
//   redis-cli -p 6379 set greeting hello
//   redis-cli -p 6379 relocate
//
// This process has the port and no data: it hands every connection to the process that serves the store. While the store
// moves from one to the other, new connections wait here, for some milliseconds. See docs/store.md.

import { rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { parseArgs } from 'node:util'
import type { Move, Settings } from './messages.js'
import { StoreProcess } from './store-process.js'

const USAGE =
  'main.js [--port N] [--size MIB] [--channels N] [--downtime-limit MS] [--max-bandwidth BYTES] [--qmp PATH] [--json]'

const values = readOptions()

const settings: Settings = {
  size: Number(values.size) * 2 ** 20,
  channels: Number(values.channels),
  downtimeLimit: Number(values['downtime-limit']),
  maxBandwidth: Number(values['max-bandwidth']),
  ...(values.qmp !== undefined && { qmp: values.qmp }),
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: 'string', default: '6379' },
        size: { type: 'string', default: '256' },
        channels: { type: 'string', default: '4' },
        'downtime-limit': { type: 'string', default: '20' },
        'max-bandwidth': { type: 'string', default: '0' },
        qmp: { type: 'string' },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
    if (!values.help) return values
    console.log(`Usage: ${USAGE}`)
    process.exit(0)
  } catch (error) {
    console.error(`${(error as Error).message}\nUsage: ${USAGE}`)
    process.exit(2)
  }
}

function tell(event: Record<string, unknown>, text: string): void {
  console.log(values.json ? JSON.stringify(event) : text)
}

class Supervisor {
  #owner: StoreProcess
  #other: StoreProcess
  /** Connections that came while nobody served; undefined while somebody does. */
  #waiting: Socket[] | undefined = []
  #moves = 0

  constructor() {
    this.#owner = this.#start()
    this.#other = this.#start()
  }

  async serve(): Promise<void> {
    await this.#owner.expect('ready')
    await this.#give(this.#owner, true)
  }

  connect(socket: Socket): void {
    // It may break off before it is handed on.
    socket.on('error', () => socket.destroy())
    if (this.#waiting) this.#waiting.push(socket)
    else this.#owner.adopt(socket)
  }

  async relocate(): Promise<void> {
    const owner = this.#owner
    const other = this.#other
    try {
      const move = await this.#move(owner, other)
      this.#moves++
      const { totalTime, passes, downtime, pause } = move
      const figures = `${totalTime.toFixed(0)} ms, ${passes} passes, ${downtime.toFixed(1)} ms of downtime`
      const text = `moved from process ${owner.pid} to ${other.pid} in ${figures}, requests waited ${pause.toFixed(1)} ms`
      tell({ event: 'moved', move: this.#moves, from: owner.pid, to: other.pid, ...move }, text)
    } catch (error) {
      const { message } = error as Error
      // What it holds is a part of the store at best.
      other.end()
      this.#other = this.#start()
      await this.#other.expect('ready')
      // The old one goes on by itself, unless it believed that it had left: it has all of the store yet.
      await this.#give(owner, false)
      tell({ event: 'failed', message }, `the store stays where it is: ${message}`)
    }
  }

  async #move(owner: StoreProcess, other: StoreProcess): Promise<Move> {
    other.order({ type: 'receive' })
    const { uri } = await other.expect('listening')
    const arrived = other.expect('arrived')
    // Where it does not arrive the old process fails as well: that is waited for, so that one of them knows.
    arrived.catch(() => {})
    owner.order({ type: 'leave', uri })
    const halted = await owner.expect('halted')
    this.#waiting ??= []
    // Both must have said so: the one that nothing changes there any more, the other that it has everything.
    const { figures } = await owner.expect('left')
    await arrived
    this.#other = owner
    const { at } = await this.#give(other, false)
    return { ...figures, pause: at - halted.at }
  }

  async #give(to: StoreProcess, fresh: boolean): Promise<{ at: number }> {
    this.#owner = to
    to.order({ type: 'serve', fresh })
    for (const socket of this.#waiting ?? []) to.adopt(socket)
    this.#waiting = undefined
    return await to.expect('serving')
  }

  #start(): StoreProcess {
    const started = new StoreProcess(settings, {
      relocate: () => this.relocate(),
      ended: (reason) => {
        if (started !== this.#owner) return
        console.error(`the store is lost: ${reason}`)
        process.exit(1)
      },
    })
    return started
  }
}

// With --json a program has started it, and holds its standard input.
if (values.json) process.stdin.on('end', () => process.exit()).resume()

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    // Of the process that serves the store, which ends with this one.
    if (values.qmp !== undefined) rmSync(values.qmp, { force: true })
    process.exit(status)
  })
}

const supervisor = new Supervisor()
const listener = createServer({ pauseOnConnect: true }, (socket) => supervisor.connect(socket))
listener.on('error', ({ message }) => {
  console.error(message)
  process.exit(1)
})
listener.listen(Number(values.port), '127.0.0.1', async () => {
  const { port } = listener.address() as { port: number }
  await supervisor.serve()
  tell({ event: 'listening', port }, `listening on port ${port}; redis-cli -p ${port} relocate moves the store`)
})
