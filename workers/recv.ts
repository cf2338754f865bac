// A receiving channel's thread: one Piscina task for the length of a migration.

import { runRecv } from '../src/channel/recv.js'

export default runRecv
