// Every fault point once, on each side that has it: the engine breaks there as the table says, and leaves nothing behind.

import t from 'tap'
import { FAULT_POINTS } from '../../src/faults.js'
import { endIdleThreads, FaultPoints } from '../../src/index.js'
import { missingHere, shortCases } from './cases.js'
import { Walk } from './walk.js'

// Longer than one file of tests may take by itself.
t.setTimeout(240_000)
const walk = new Walk()
t.teardown(async () => {
  await walk.close()
  await endIdleThreads()
})

t.test('every number is given once', async (t) => {
  const numbers = Object.values(FAULT_POINTS).map(({ number }) => number)
  t.strictSame(
    numbers,
    [...new Set(numbers)].sort((a, b) => a - b),
  )
})

t.test('what is no point, or not of that side, is refused by name', async (t) => {
  for (const order of ['no-such-point', 'send-fails@0', 'send-fails@', 'send-fails@x', '']) {
    t.throws(() => new FaultPoints([order as 'send-fails']), {
      code: 'ERR_MULTIFD_ARGUMENT',
      message: /no fault point/,
    })
  }
  t.throws(() => new FaultPoints(['recv-ends']).checkSide('source'), { code: 'ERR_MULTIFD_ARGUMENT' })
  t.throws(() => FaultPoints.fromEnvironment('source', 'send-fails,typo'), { code: 'ERR_MULTIFD_ARGUMENT' })
  const text = 'send-fails@3, destination:channel-dies'
  t.ok(FaultPoints.fromEnvironment('source', text)?.armed('send-fails'))
  t.notOk(FaultPoints.fromEnvironment('source', text)?.armed('channel-dies'))
  t.ok(FaultPoints.fromEnvironment('destination', text)?.armed('channel-dies'))
  t.equal(FaultPoints.fromEnvironment('destination', 'send-fails'), undefined)
  t.ok(FaultPoints.fromEnvironment('snapshot', 'disk-full')?.armed('disk-full'))
  t.equal(FaultPoints.fromEnvironment('destination', 'snapshot:disk-full'), undefined)
})

for (const one of shortCases()) {
  const { point, side, method, at } = one
  const skip = missingHere(one) ?? false
  t.test(`${point}@${at} at the ${side}, ${method}: ${FAULT_POINTS[point].outcome}`, { skip }, async (t) => {
    const { problems, messages } = await walk.step(one)
    t.strictSame(problems, [], messages.join(' | '))
  })
}

t.test('no memory of theirs is left once the threads have ended', async (t) => {
  t.strictSame(await walk.settle(), [])
})
