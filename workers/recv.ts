// A receiving channel's thread: one Piscina task for the length of a migration.

export { runRecv as default } from '../src/channel/recv.js'
