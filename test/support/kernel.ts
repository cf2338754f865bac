// Whether this machine's kernel can do what a test is about.

import { requireDirtyLog } from '../../src/ram/dirty-log.js'
import { requireWriteTracker } from '../../src/ram/write-tracker.js'

/** For tap's `skip`: why not, or false. */
export const noKernelLog = reason(() => requireDirtyLog('kernel'))
export const noWriteTracker = reason(requireWriteTracker)

function reason(check: () => void): string | false {
  try {
    check()
    return false
  } catch (error) {
    return (error as Error).message
  }
}
