// Every scenario of the list, in its order.

import type { Row } from '../table.js'
import { DESCRIPTORS } from './descriptors.js'
import { PRECOPY } from './precopy.js'
import { SUSPENDED } from './suspended.js'

export const ROWS: readonly Row[] = [...PRECOPY, ...SUSPENDED, ...DESCRIPTORS]
