// The source's coordinator thread.

import { workerData } from 'node:worker_threads'
import { runSource, type SourceTask } from '../src/migration/source-coordinator.js'

const task = workerData as SourceTask
task.toProgram.postMessage({ type: 'ended', outcome: runSource(task) })
