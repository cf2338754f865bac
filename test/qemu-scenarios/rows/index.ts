// Every scenario of the list, in its order.

import type { Row } from '../table.js'
import { BAD_DESTINATION, CANCEL } from './cancel.js'
import { DESCRIPTORS } from './descriptors.js'
import { ANALYZE, FILES } from './files.js'
import { IDENTITY } from './identity.js'
import { MULTIFD } from './multifd.js'
import { POSTCOPY } from './postcopy.js'
import { PRECOPY } from './precopy.js'
import { SHARED } from './shared.js'
import { SUSPENDED } from './suspended.js'
import { CPR_MODES, THROTTLED } from './throttle.js'
import { TLS } from './tls.js'

export const ROWS: readonly Row[] = [
  ...PRECOPY,
  ...SUSPENDED,
  ...DESCRIPTORS,
  ...FILES,
  ...MULTIFD,
  ...CANCEL,
  ...TLS,
  ...POSTCOPY,
  ...THROTTLED,
  BAD_DESTINATION,
  ANALYZE,
  SHARED,
  ...IDENTITY,
  ...CPR_MODES,
]
