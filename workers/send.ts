// A sending channel's thread: one Piscina task for the length of a migration.

import { runSend } from '../src/channel/send.js'

export default runSend
