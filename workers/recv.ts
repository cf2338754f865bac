// A receiving channel's thread: one Piscina task for the length of a migration.

import { workerData } from 'node:worker_threads'
import { runRecv } from '../src/channel/recv.js'
import { noteLoaded } from '../src/channel/thread.js'
import type { ShmHandle } from '../src/shm/migration-shm.js'

noteLoaded(workerData as ShmHandle)

export default runRecv
