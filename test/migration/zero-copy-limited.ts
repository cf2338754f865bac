// Process of a test, which may lock only so much memory: migrates 64 MiB within itself and prints how that ended.

import { MultifdError } from '../../src/errors.js'
import { MigrationDestination, MigrationSource } from '../../src/index.js'
import { allocate, checksums, fillNoise } from '../support/peers/index.js'

const shapes = [{ idstr: 'heap', size: 64 * 1024 ** 2 }]
const [ours, theirs] = [allocate(shapes), allocate(shapes)]
ours.forEach(fillNoise)
const destination = new MigrationDestination({ ram: theirs })
const source = new MigrationSource({ ram: ours, parameters: { zeroCopySend: true } })
try {
  const { status } = await source.migrate(await destination.listen('tcp:127.0.0.1:0'))
  await destination.completed
  const same = JSON.stringify(checksums(theirs)) === JSON.stringify(checksums(ours))
  process.stdout.write(JSON.stringify({ status, same }))
} catch (error) {
  process.stdout.write(JSON.stringify(MultifdError.from(error).toPlain()))
  process.exit()
}
