// Every scenario of the list, in its order.

import type { Row } from '../table.js'
import { PRECOPY } from './precopy.js'

export const ROWS: readonly Row[] = [...PRECOPY]
