// The state of a program's devices, which moves with its memory.
//
//   npm run build && node dist/examples/devices.js

import { strict as assert } from 'node:assert'
import { MigrationDestination, MigrationSource, RamBlock, vmstate } from 'multifd'

const { array, bool, describe, device, END_OF_LIST, pointer, struct, timer, u8, u16, u32, varArray } = vmstate

/** A serial port, as the program has it. */
class Uart {
  divider = 12
  enabled = false
  /** Nanoseconds; -1n when it is not armed. */
  expire = -1n
  readonly regs = new Uint8Array(4)
  /** Received and not read yet. */
  fifo: number[] = []
  transfer: { from: number; left: number } | null = null
  errors = 0
}

const transfer = describe({ name: 'transfer', fields: [u32('from'), u16('left'), END_OF_LIST] })

const uart = describe<Uart>({
  name: 'uart',
  versionId: 2,
  minimumVersionId: 1,
  fields: [
    u16('divider'),
    bool('enabled'),
    timer('expire'),
    array(u8('regs'), 4),
    varArray(u8('fifo_count'), u8('fifo'), { max: 16 }),
    pointer(struct('transfer', transfer), { version: 2 }),
    END_OF_LIST,
  ],
  postLoad: (state) => {
    if (state.divider === 0) throw new Error('a divider of zero')
  },
  // Most ports never saw an error: an older program reads what they save.
  subsections: [
    describe<Uart>({
      name: 'uart/errors',
      needed: ({ errors }) => errors > 0,
      fields: [u32('errors'), END_OF_LIST],
    }),
  ],
})

/** What a program registers, on both sides alike. */
function devices(ports: Uart[], session: { value: unknown }): vmstate.Device[] {
  return [
    ...ports.map((port) => device(uart, port)),
    // Without a schema: any plain value.
    {
      idstr: 'session',
      version: 1,
      save: () => session.value,
      load: (value) => {
        session.value = value
      },
    },
  ]
}

const heap = { idstr: 'heap', size: 1024 ** 2 }

// There …
const loadedPorts = [new Uart(), new Uart()]
const session: { value: unknown } = { value: undefined }
const destination = new MigrationDestination({
  ram: [RamBlock.allocate(heap)],
  devices: devices(loadedPorts, session),
})
const uri = await destination.listen('tcp:127.0.0.1:0')

// … and here.
const ports = [new Uart(), new Uart()]
const source = new MigrationSource({
  ram: [RamBlock.allocate(heap)],
  devices: devices(ports, { value: { user: 'ada', tabs: [1, 2] } }),
})
await source.migrate(uri, {
  // What happens last is in what is saved.
  stop: () => {
    Object.assign(ports[1]!, {
      enabled: true,
      expire: 5_000_000n,
      fifo: [72, 105],
      transfer: { from: 4096, left: 12 },
      errors: 3,
    })
  },
})
await destination.completed
assert.deepEqual(loadedPorts, ports)
console.log(
  `port 1 has ${String.fromCharCode(...loadedPorts[1]!.fifo)}, the session is ${JSON.stringify(session.value)}`,
)
