// The source's coordinator thread.

import { workerData } from 'node:worker_threads'
import { noteLoaded } from '../src/channel/thread.js'
import { runSource, type SourceTask } from '../src/migration/source-coordinator.js'

const task = workerData as SourceTask
noteLoaded(task.shm)
task.toProgram.postMessage({ type: 'ended', outcome: runSource(task) })
