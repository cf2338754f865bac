// Opening userfaultfd: who may, and what a process is told that may not.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import t from 'tap'
import { missingFromKernel } from '../../src/faults.js'
import { mapAnonymous } from '../../src/os/memory.js'
import { Userfaultfd } from '../../src/os/userfaultfd.js'
import { noKernelLog, noWriteTracker } from '../support/kernel.js'
import { openDescriptors } from '../support/peers/index.js'

/** What a process of nobody's says of the kernel's log, and of holding writes up. */
function asNobody(): { log: string; tracker: string } {
  const log = new URL('../../src/ram/kernel-dirty-log.js', import.meta.url).href
  const tracker = new URL('../../src/ram/write-tracker.js', import.meta.url).href
  const code = `
    const say = (check) => { try { check(); return 'can' } catch (error) { return error.code + ': ' + error.message } }
    const { KernelDirtyLog } = await import(${JSON.stringify(log)})
    const { requireWriteTracker } = await import(${JSON.stringify(tracker)})
    const { RamBlock } = await import(${JSON.stringify(new URL('../../src/ram/block.js', import.meta.url).href)})
    const { LoneDirtyBitmap } = await import(${JSON.stringify(new URL('../support/dirty-bitmap.js', import.meta.url).href)})
    const block = RamBlock.allocate({ idstr: 'heap', size: 65536 })
    const tracking = new KernelDirtyLog(block)
    const use = () => {
      tracking.start()
      block.bytes()[4096] = 1
      require('node:fs').readSync(require('node:fs').openSync('/dev/zero'), block.bytes(), 8192, 1, null)
      if (tracking.synchronise(new LoneDirtyBitmap(block.pages)) !== 2) throw new Error('not two pages')
    }
    const { createRequire } = await import('node:module')
    const require = createRequire('/')
    console.log(JSON.stringify({ log: say(use), tracker: say(requireWriteTracker) }))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    uid: 65534,
    gid: 65534,
    encoding: 'utf8',
    env: {},
    cwd: '/',
  })
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as { log: string; tracker: string }
}

const unprivileged = readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim() === '1'
const noNobody = process.getuid?.() === 0 ? noKernelLog : 'only root can become somebody else'

t.test('anybody may use the log; holding writes up needs rights, and the error says which', { skip: noNobody }, (t) => {
  const { log, tracker } = asNobody()
  t.equal(log, 'can', 'writes of the program and of the kernel for it')
  let node = true
  try {
    accessSync('/dev/userfaultfd', constants.F_OK)
  } catch {
    node = false
  }
  if (unprivileged) t.equal(tracker, 'can')
  else {
    t.match(tracker, /^ERR_MULTIFD_UNSUPPORTED/)
    t.match(tracker, node ? /\/dev\/userfaultfd: EACCES/ : /\/dev\/userfaultfd: ENOENT/)
    t.match(tracker, /userfaultfd: EPERM.*vm\.unprivileged_userfaultfd=1/)
  }
  t.end()
})

t.test('what the kernel lacks is named, and what it has is found out once', { skip: noWriteTracker }, (t) => {
  const open = (): Userfaultfd =>
    Userfaultfd.open({ kernelFaults: true, required: ['pagefaultFlagWp'], wanted: ['wpAsync'] })
  missingFromKernel.add('userfaultfd')
  t.teardown(() => missingFromKernel.clear())
  t.throws(open, { code: 'ERR_MULTIFD_UNSUPPORTED', message: /userfaultfd can not be opened/ })
  missingFromKernel.clear()
  missingFromKernel.add('wp-async')
  const without = open()
  t.notOk(without.has('wpAsync'), 'what is only wanted may be missing')
  without.close()
  missingFromKernel.clear()
  const before = openDescriptors()
  const opened = open()
  t.equal(openDescriptors().size - before.size, 1)
  opened.close()
  opened.close()
  t.same(openDescriptors(), before)
  const mapping = mapAnonymous(65536)
  t.throws(() => opened.register(mapping.address, 65536, 'it'), { code: 'ERR_MULTIFD_STATE', message: /closed/ })
  mapping.unmap()
  t.end()
})

t.test('memory that is not there can not be registered', { skip: noKernelLog }, (t) => {
  const mapping = mapAnonymous(65536)
  mapping.unmap()
  const opened = Userfaultfd.open({ kernelFaults: false, required: ['wpAsync'] })
  t.teardown(() => opened.close())
  t.throws(() => opened.register(mapping.address, 65536, "block 'heap'"), {
    code: 'ERR_MULTIFD_UNSUPPORTED',
    message: /block 'heap'/,
    syscall: 'ioctl',
  })
  t.end()
})
