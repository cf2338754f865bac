// Process of a test: prints how much memory it may lock.

import { lockedMemoryLimit } from '../../src/os/zero-copy.js'

process.stdout.write(`${lockedMemoryLimit()}\n`)
