// A virtual machine saved into a file while it runs, and revived from the file in another QEMU.
//
//   npm run build && node dist/examples/save-and-revive.js [QEMU [ARGUMENT …]]
//
// QEMU is the program to start, by default qemu-system-x86_64; the arguments are added to both machines'.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspectSnapshot, SnapshotReceiver, SnapshotSender } from 'multifd'

const CHANNELS = 4
const [program = 'qemu-system-x86_64', ...extra] = process.argv.slice(2)

interface Answer {
  return?: unknown
  error?: { desc: string }
  event?: string
}

/** A QEMU and its QMP connection. */
class Machine {
  readonly #process: ChildProcess
  readonly #socket: Socket
  readonly #answers: AsyncIterator<string>

  private constructor(process: ChildProcess, socket: Socket) {
    this.#process = process
    this.#socket = socket
    this.#answers = createInterface(socket)[Symbol.asyncIterator]()
  }

  static async start(qmp: string, ...args: string[]): Promise<Machine> {
    const common = ['-machine', 'pc', '-m', '128', '-nodefaults', '-display', 'none']
    const child = spawn(program, [...common, '-qmp', `unix:${qmp},server=on,wait=off`, ...extra, ...args], {
      stdio: 'inherit',
    })
    await once(child, 'spawn')
    for (;;) {
      const socket = connect(qmp)
      try {
        await once(socket, 'connect')
        const machine = new Machine(child, socket)
        await machine.#answers.next() // the greeting
        await machine.run('qmp_capabilities')
        return machine
      } catch (error) {
        if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}`, { cause: error })
        await sleep(50)
      }
    }
  }

  async run(execute: string, parameters: object = {}): Promise<unknown> {
    this.#socket.write(JSON.stringify({ execute, arguments: parameters }))
    for (;;) {
      const { value, done } = await this.#answers.next()
      if (done) throw new Error(`QEMU hung up during ${execute}`)
      const answer = JSON.parse(value) as Answer
      if (answer.error) throw new Error(`${execute}: ${answer.error.desc}`)
      if ('return' in answer) return answer.return
    }
  }

  /** Both sides of a migration have to be told the same. */
  async setUpMigration(...more: string[]): Promise<void> {
    const capabilities = ['multifd', ...more].map((capability) => ({ capability, state: true }))
    await this.run('migrate-set-capabilities', { capabilities })
    // QEMU's own default would hold it to 128 MiB a second.
    await this.run('migrate-set-parameters', { 'multifd-channels': CHANNELS, 'max-bandwidth': 10e9 })
  }

  async status(): Promise<string> {
    return ((await this.run('query-status')) as { status: string }).status
  }

  async quit(): Promise<void> {
    const ended = once(this.#process, 'exit')
    this.#socket.write('{"execute":"quit"}')
    await ended
  }
}

const folder = mkdtempSync(join(tmpdir(), 'multifd-example-'))
const machines: Machine[] = []
try {
  const snapshot = join(folder, 'guest.snapshot')

  // Save: we listen, and QEMU migrates to us. With the return path it goes on by itself should we fail.
  const first = await Machine.start(join(folder, 'first.qmp'))
  machines.push(first)
  console.log(`the first machine is ${await first.status()}`)
  const receiver = new SnapshotReceiver(snapshot, { parameters: { multifdChannels: CHANNELS } })
  const uri = await receiver.listen(`unix:${join(folder, 'save.sock')}`)
  await first.setUpMigration('return-path')
  await first.run('migrate', { uri })
  const { ram } = await receiver.completed
  console.log(`saved: ${ram.normal} pages with data, ${ram.duplicate} zero pages`)
  const { machineType, runState } = inspectSnapshot(snapshot)
  console.log(`the snapshot: machine type ${machineType}, ${runState} when it was saved`)
  await machines.pop()!.quit()

  // Revive: another QEMU listens, and we migrate to it.
  const second = await Machine.start(join(folder, 'second.qmp'), '-incoming', 'defer')
  machines.push(second)
  await second.setUpMigration()
  await second.run('migrate-incoming', { uri: `unix:${join(folder, 'revive.sock')}` })
  await using sender = new SnapshotSender(snapshot, { parameters: { multifdChannels: CHANNELS } })
  const { totalTime } = await sender.send(`unix:${join(folder, 'revive.sock')}`)
  while ((await second.status()) === 'inmigrate') await sleep(10)
  console.log(`revived in ${Math.round(totalTime)} ms: the second machine is ${await second.status()}`)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
} finally {
  for (const machine of machines) await machine.quit()
  rmSync(folder, { recursive: true, force: true })
}
