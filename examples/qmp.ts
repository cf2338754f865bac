// A program whose migration is driven by QMP, as a QEMU's is: by a manager, a script, socat, or here by a QmpClient.
//
//   npm run build && node dist/examples/qmp.js
//
// Two processes of one program, each with its memory and its QMP socket. This one also plays the manager: it knows nothing of
// the two but their sockets.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MigrationDestination, MigrationSource, QmpClient, QmpServer, RamBlock } from 'multifd'

const MIB = 1024 * 1024

/** The program: it counts in its memory, here or there. */
class Counter {
  readonly block = RamBlock.allocate({ idstr: 'counts', size: 16 * MIB })
  readonly #counts = new Int32Array(this.block.memory!)
  #timer: NodeJS.Timeout | undefined

  get total(): number {
    return this.#counts[0]!
  }

  run(): void {
    this.#timer = setInterval(() => {
      const at = 1 + Math.floor(Math.random() * (this.#counts.length - 1))
      this.#counts[at]!++
      this.#counts[0]!++
      this.block.markDirty(0, 4)
      this.block.markDirty(at * 4, 4)
    }, 1)
  }

  halt(): void {
    clearInterval(this.#timer)
  }

  isConsistent(): boolean {
    return this.#counts.subarray(1).reduce((sum, count) => sum + count, 0) === this.total
  }
}

const counter = new Counter()
const hooks = { stop: () => counter.halt(), resume: () => counter.run() }
if (process.argv[2] === undefined) await manage()
else await arrive(process.argv[2])

/** The other process: waits to be told where to receive, and goes on counting from there. */
async function arrive(path: string): Promise<void> {
  const destination = new MigrationDestination({ ram: [counter.block] })
  const qmp = new QmpServer({ destination, ...hooks, quit: () => process.disconnect() })
  await qmp.listen(`unix:${path}`)
  let arrived = 0
  destination.on('status', (status) => {
    if (status === 'completed') arrived = counter.total
  })
  process.send!('ready')
  process.once('disconnect', () => {
    counter.halt()
    const right = counter.isConsistent() && arrived > 0
    console.log(`there: came with ${arrived}, went on to ${counter.total}, ${right ? 'all of it right' : 'WRONG'}`)
  })
}

async function manage(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'multifd-qmp-'))
  const [here, there] = [join(folder, 'here'), join(folder, 'there')]
  const other = fork(fileURLToPath(import.meta.url), [there])
  const ended = once(other, 'exit')
  await once(other, 'message')

  // The program's own part: one line, with what stops it and lets it go on.
  const source = new MigrationSource({ ram: [counter.block] })
  const server = new QmpServer({ source, ...hooks })
  await server.listen(`unix:${here}`)
  counter.run()

  // The manager's.
  const [from, to] = [await QmpClient.connect(here), await QmpClient.connect(there)]
  from.on('event', (name, data) => console.log(`event: ${name} ${JSON.stringify(data)}`))
  console.log('before:', await from.command('query-status'))
  await from.command('calc-dirty-rate', { 'calc-time': 200, 'calc-time-unit': 'millisecond' })
  for (const client of [from, to]) {
    const capabilities = ['multifd', 'events'].map((capability) => ({ capability, state: true }))
    await client.command('migrate-set-capabilities', { capabilities })
    await client.command('migrate-set-parameters', { 'multifd-channels': 2, 'downtime-limit': 50 })
  }
  await to.command('migrate-incoming', { uri: `unix:${folder}/migration` })
  const completed = new Promise<void>((resolve, reject) => {
    from.on('event', (name, data) => {
      const { status } = data as { status?: string }
      if (name === 'MIGRATION' && status === 'completed') resolve()
      if (name === 'MIGRATION' && status === 'failed') reject(new Error('the migration failed'))
    })
  })
  await from.command('migrate', { uri: `unix:${folder}/migration` })
  await completed
  const { ram } = await from.command<{ ram: { total: number } }>('query-migrate')
  console.log(`moved ${ram.total / MIB} MiB; after:`, await from.command('query-status'))
  await to.command('quit')
  for (const client of [from, to]) client.close()
  await server.close()
  await ended
  rmSync(folder, { recursive: true, force: true })
}
