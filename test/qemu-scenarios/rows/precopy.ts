// One connection, a guest that runs, several rounds of what it changes.

import assert from 'node:assert/strict'
import { enterQemu, leaveQemu, type Way } from '../passage.js'
import { type Row, type Run, works } from '../table.js'

/** There and back: QEMU → us, and us → QEMU, over several passes each. */
export function roundTrip(
  seen: string,
  there: Way | ((path: (name: string) => string) => Way),
  back = there,
): Pick<Run, 'roles' | 'run'> {
  return {
    roles: ['S', 'D'],
    async run(ground) {
      const way = (choice: typeof there): Way =>
        typeof choice === 'function' ? choice((name) => ground.path(name)) : choice
      const { guest } = await leaveQemu(ground, way(there))
      await enterQemu(ground, guest, way(back))
      return works(seen)
    },
  }
}

export const SAME = 'memory changes meanwhile, and is the same; the guest goes on'

const unix = (path: (name: string) => string): Way => ({ address: `unix:${path('socket')}` })

export const PRECOPY: readonly Row[] = [
  { name: 'precopy/tcp/plain', runs: [{ ...roundTrip(SAME, {}), old: true }] },
  { name: 'precopy/unix/plain', runs: [{ ...roundTrip(SAME, unix), old: true }] },
  {
    name: 'precopy/unix/xbzrle',
    runs: [
      {
        roles: ['S', 'D'],
        old: true,
        covered: 'test/qemu/xbzrle.test.ts',
        async run(ground) {
          const there = {
            ...unix((name) => ground.path(name)),
            qemu: { capabilities: ['xbzrle'], parameters: { 'max-bandwidth': 30e6 } },
          }
          const { guest, statistics } = await leaveQemu(ground, there)
          assert.ok(statistics.xbzrleCache && statistics.xbzrleCache.pages > 0)
          const sent = await enterQemu(ground, guest, { ...unix((name) => ground.path(name)), ours: { xbzrle: true } })
          assert.ok(sent.xbzrleCache && sent.xbzrleCache.pages > 0)
          return works('pages go as what changed in them; the memory is the same, and the guest goes on')
        },
      },
    ],
  },
  {
    name: 'precopy/tcp/plain/switchover-ack',
    runs: [
      {
        ...roundTrip('the switch waits for the word; the memory is the same, and the guest goes on', {
          qemu: { capabilities: ['switchover-ack', 'return-path'] },
          ours: { switchoverAck: true },
        }),
        covered: 'test/qemu/switchover-ack.test.ts',
      },
    ],
  },
]
