// How figures and names are written.

import t from 'tap'
import { bytes, duration, kebabKeys, percent, printable, rate, table } from '../../src/cli/format.js'
import { byteCount, seconds, whole } from '../../src/cli/options.js'

t.test('bytes have a unit', async (t) => {
  t.equal(bytes(0), '0 B')
  t.equal(bytes(1023), '1023 B')
  t.equal(bytes(1024), '1.00 KiB')
  t.equal(bytes(1.5 * 2 ** 30), '1.50 GiB')
  t.equal(bytes(5000 * 2 ** 40), '5000.00 TiB')
  t.equal(rate(2048), '2.00 KiB/s')
  t.equal(rate(0.4), '0 B/s')
})

t.test('times are readable', async (t) => {
  t.equal(duration(0), '0 ms')
  t.equal(duration(1.26), '1.3 ms')
  t.equal(duration(999), '999 ms')
  t.equal(duration(999.9), '1.0 s')
  t.equal(duration(12_340), '12.3 s')
  t.equal(duration(250_000), '4 min 10 s')
})

t.test('shares are whole and never too large', async (t) => {
  t.equal(percent(1, 3), 33)
  t.equal(percent(999, 1000), 99)
  t.equal(percent(0, 0), 100)
})

t.test('control characters are shown, not obeyed', async (t) => {
  t.equal(printable('pc.ram'), 'pc.ram')
  t.equal(printable('a\u001b[2Jb\n'), 'a\\u{1b}[2Jb\\u{a}')
  t.equal(printable('\u202e'), '\\u{202e}')
})

t.test('tables are aligned and have no spaces at the end', async (t) => {
  const rows = [
    ['name', 'size', ''],
    ['a', '10', 'x'],
  ]
  t.equal(table(rows, 'lrl'), 'name  size\na       10  x')
})

t.test("keys as QEMU's", async (t) => {
  t.strictSame(kebabKeys({ totalTime: 1, ram: [{ pageSize: 2 }], none: null }), {
    'total-time': 1,
    ram: [{ 'page-size': 2 }],
    none: null,
  })
})

t.test('option values', async (t) => {
  t.equal(byteCount('500M'), 500 * 2 ** 20)
  t.equal(byteCount('1.5k'), 1536)
  t.equal(byteCount('0'), 0)
  for (const bad of ['', 'M', '-1', '1T', '1e3', '99999999999999999999', '1 G']) t.throws(() => byteCount(bad))
  t.equal(seconds(0)('0.25'), 250)
  for (const bad of ['', '-1', 'x', '86401']) t.throws(() => seconds(0)(bad))
  t.throws(() => seconds(1)('0'))
  t.equal(whole(1, 255)('255'), 255)
  for (const bad of ['', '0', '256', '0x10', '1.0']) t.throws(() => whole(1, 255)(bad))
})
