// The thread of a background snapshot.

import { workerData } from 'node:worker_threads'
import { libc } from '../src/os/libc.js'
import { SaveControl } from '../src/shm/save-control.js'
import { type BackgroundTask, runBackgroundSave } from '../src/snapshot/background.js'

const task = workerData as BackgroundTask
libc()
new SaveControl(task.control).noteLoaded()
runBackgroundSave(task)
