// A sending channel's thread: one Piscina task for the length of a migration.

export { runSend as default } from '../src/channel/send.js'
