// One of the store's two processes: serves the store, or waits to take it over. Started by the supervisor, main.ts.

import type { Socket } from 'node:net'
import { MigrationDestination, MigrationSource, QmpServer, RamBlock, requireDirtyLog } from 'multifd'
import type { Order, Settings, Word } from './messages.js'
import { StoreServer } from './server.js'
import { Table } from './table.js'

const settings = JSON.parse(process.argv[2]!) as Settings
const { channels: multifdChannels, downtimeLimit, maxBandwidth } = settings

// All of the store. The kernel sees what is written: the table marks nothing.
requireDirtyLog('kernel')
const block = RamBlock.allocate({ idstr: 'store', size: settings.size, dirtyLog: 'kernel' })
const source = new MigrationSource({ ram: [block], parameters: { multifdChannels, downtimeLimit, maxBandwidth } })
const destination = new MigrationDestination({ ram: [block], parameters: { multifdChannels } })

/** While the store is here. */
let table: Table | undefined
let moving = false
/** While the store is here, where it is asked for: `multifd top` and `multifd dirty-rate` ask there. */
let qmp: QmpServer | undefined

const server: StoreServer = new StoreServer({
  info: () => ({
    process_id: process.pid,
    connected_clients: server.clients,
    relocation: moving ? source.status : 'none',
  }),
  relocate() {
    if (moving) throw new Error('the store is moving already')
    moving = true
    say({ type: 'relocate' })
  },
})

// The supervisor may go at any moment, also between the look and the message; the end that follows is that of 'disconnect'.
function say(word: Word): void {
  if (process.connected) process.send!(word, () => {})
}

// Monotonic, and the same clock in every process.
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}

async function receive(): Promise<void> {
  say({ type: 'listening', uri: await destination.listen('tcp:127.0.0.1:0') })
  await destination.completed
  say({ type: 'arrived' })
}

function halt(): void {
  server.halt()
  say({ type: 'halted', at: now() })
}

async function answerQmp(): Promise<void> {
  if (settings.qmp === undefined || qmp) return
  qmp = new QmpServer({ source, stop: halt, resume: () => server.resume(table!) })
  await qmp.listen(`unix:${settings.qmp}`)
}

async function leave(uri: string): Promise<void> {
  // As if nothing had been: requests that waited are run here, should it fail.
  const old = table!
  const { totalTime, downtime = 0, ram } = await source.migrate(uri, { stop: halt, resume: () => server.resume(old) })
  table = undefined
  // Before the other process takes its place.
  await qmp?.close()
  qmp = undefined
  say({ type: 'left', figures: { passes: ram.dirtySyncCount, totalTime, downtime, transferred: ram.transferred } })
  server.dismiss()
}

async function obey(order: Order, socket: Socket | undefined): Promise<void> {
  switch (order.type) {
    case 'client':
      // Its client may have gone before it came here.
      if (socket) server.adopt(socket)
      return
    case 'serve':
      table = order.fresh ? Table.create(block) : Table.open(block)
      moving = false
      server.resume(table)
      say({ type: 'serving', at: now() })
      await answerQmp()
      return
    case 'receive':
      return await receive()
    case 'leave':
      return await leave(order.uri)
  }
}

process.on('message', (order: Order, socket: Socket | undefined) => {
  obey(order, socket).catch((error: Error) => say({ type: 'failed', message: error.message }))
})
process.on('disconnect', () => process.exit())
// Ctrl-C reaches the whole group: the supervisor is the one who acts on it.
process.on('SIGINT', () => {})
say({ type: 'ready' })
