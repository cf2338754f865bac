// Two ends of ours that were not told the same: both fail, neither hangs, and the source's program goes on.

import t from 'tap'
import {
  MigrationDestination,
  type MigrationDestinationOptions,
  type MigrationParameters,
  MigrationSource,
  type MigrationSourceOptions,
} from '../../src/index.js'
import {
  allocate,
  checksums,
  type Expected,
  fillMixed,
  leavesNothing,
  openDescriptors,
  PAGE,
  rejection,
  tells,
  worksAgain,
} from '../support/peers/index.js'

const ram = allocate([{ idstr: 'heap', size: 64 * PAGE }])
fillMixed(ram[0]!)
const content = checksums(ram)
const hello: Partial<MigrationParameters> = { helloTimeoutMs: 400 }
// What the source hears of it depends on what it was about when the destination gave up.
const sourceFails: Expected = {
  code: ['ERR_MULTIFD_REMOTE', 'ERR_MULTIFD_CLOSED', 'ERR_MULTIFD_CONNECT'],
  says: /the destination|the peer is gone|failed to connect/,
}

interface Disagreement {
  title: string
  source: Omit<MigrationSourceOptions, 'ram'>
  destination: Omit<MigrationDestinationOptions, 'ram'>
  /** Of the destination's blocks. */
  blocks?: { idstr: string; size: number }[]
  expected: Expected
}

const disagreements: Disagreement[] = [
  {
    title: 'the source has more channels',
    source: { parameters: { multifdChannels: 4 } },
    destination: { parameters: { multifdChannels: 2, ...hello } },
    expected: { code: 'ERR_MULTIFD_CHANNEL', says: /channel id \d is out of range: this side has 2 channels/ },
  },
  {
    title: 'the source has fewer channels',
    source: { parameters: { multifdChannels: 1 } },
    destination: { parameters: { multifdChannels: 3, ...hello } },
    expected: { code: 'ERR_MULTIFD_CHANNEL', says: /channels 1, 2 did not come within 400 ms/ },
  },
  {
    title: 'only the source has multifd on',
    source: {},
    destination: { parameters: { multifd: false, ...hello } },
    expected: { code: 'ERR_MULTIFD_CHANNEL', says: /multifd is off on this side/ },
  },
  {
    title: 'only the destination has multifd on',
    source: { parameters: { multifd: false } },
    destination: { parameters: hello },
    expected: { code: 'ERR_MULTIFD_CHANNEL', says: /channels 0, 1 did not come within 400 ms: .*multifd on/ },
  },
  {
    title: 'the uuid',
    source: { uuid: '00112233-4455-6677-8899-aabbccddeeff' },
    destination: { uuid: 'ffeeddcc-bbaa-9988-7766-554433221100' },
    expected: { code: 'ERR_MULTIFD_MACHINE', says: /uuid 00112233.* is not the expected ffeeddcc/ },
  },
  {
    title: 'the machine type',
    source: { machineType: 'counter-2.0' },
    destination: { machineType: 'counter-1.0' },
    expected: { code: 'ERR_MULTIFD_MACHINE', says: /machine type 'counter-2.0' is not the expected 'counter-1.0'/ },
  },
  {
    title: 'the size of a block',
    source: {},
    destination: {},
    blocks: [{ idstr: 'heap', size: 63 * PAGE }],
    expected: { code: 'ERR_MULTIFD_BLOCK', says: /block 'heap' has 262144 bytes at the source and 258048 here/ },
  },
  {
    title: 'the name of a block',
    source: { parameters: { multifd: false } },
    destination: { parameters: { multifd: false } },
    blocks: [{ idstr: 'stack', size: 64 * PAGE }],
    expected: { code: 'ERR_MULTIFD_BLOCK', says: /block 'heap', this side has none/ },
  },
  {
    title: 'the destination has one block more',
    source: {},
    destination: {},
    blocks: [
      { idstr: 'heap', size: 64 * PAGE },
      { idstr: 'stack', size: PAGE },
    ],
    expected: { code: 'ERR_MULTIFD_BLOCK', says: /the source has no block 'stack'/ },
  },
]

t.before(() => worksAgain(t, new MigrationSource({ ram }), ram))

for (const { title, blocks = ram, expected, ...options } of disagreements) {
  t.test(title, async (t) => {
    const before = openDescriptors()
    const theirs = allocate(blocks)
    const destination = new MigrationDestination({ ram: theirs, ...options.destination })
    const source = new MigrationSource({ ram, ...options.source })
    let halted = 0
    const hooks = { stop: () => void halted++, resume: () => void halted-- }
    const failed = rejection(source.migrate(await destination.listen('tcp:127.0.0.1:0'), hooks))
    tells(t, await rejection(destination.completed), expected)
    tells(t, await failed, sourceFails)
    t.strictSame([source.status, destination.status], ['failed', 'failed'])
    t.equal(halted, 0, 'the program runs')
    t.strictSame(checksums(ram), content, 'its memory is as it was')
    t.ok(
      theirs.every((block) => block.bytes().every((byte) => byte === 0)),
      'and nothing was written over there',
    )
    await leavesNothing(t, before)
  })
}

t.test('after all these, a migration works', (t) => worksAgain(t, new MigrationSource({ ram }), ram))
