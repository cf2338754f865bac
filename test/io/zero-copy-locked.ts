// Process of a test, which may lock next to nothing: prints what a zero-copy send of 512 KiB fails with.

import { MultifdError } from '../../src/errors.js'
import { DescriptorChannel } from '../../src/io/descriptor-channel.js'
import { IoVector } from '../../src/io/iovec.js'
import { RamBlock } from '../../src/ram/block.js'
import { connection } from './connection.js'

const channel = new DescriptorChannel(connection().ours, 0, () => {})
channel.enableZeroCopy(16)
const ram = RamBlock.allocate({ idstr: 'heap', size: 524288 })
const vector = new IoVector()
vector.push(ram, 0, ram.size)
try {
  channel.writeZeroCopy(vector, 0)
  process.stdout.write('{}')
} catch (error) {
  process.stdout.write(JSON.stringify(MultifdError.from(error).toPlain()))
}
