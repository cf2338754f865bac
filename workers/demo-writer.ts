// The thread of `multifd demo` that changes the memory.

import { workerData } from 'node:worker_threads'
import { runWriter, type WriterTask } from '../src/cli/demo/writer.js'

runWriter(workerData as WriterTask)
