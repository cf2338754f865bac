// The names under which programs describe their devices.

export { type ByteReader, MemoryReader } from '../wire/reader.js'
export { array, type MutableArrayLike, type VarArrayOptions, varArray } from './arrays.js'
export { type BitmapOptions, type BufferOptions, bitmap, buffer, type SizeFrom, unused } from './buffers.js'
export { checkStructure } from './check.js'
export { type Description, type DescriptionOptions, describe, type FieldList, type StateOf } from './description.js'
export { type DescribedDevice, type Device, type DeviceOptions, device, type PackedDevice } from './device.js'
export { DeviceSet, type RegisteredDevice } from './device-set.js'
export {
  END_OF_LIST,
  type EndOfList,
  type Existence,
  type Field,
  type FieldOptions,
  type ValueField,
} from './field.js'
export {
  bool,
  type Integer64Options,
  type IntegerOptions,
  i8,
  i16,
  i32,
  i64,
  timer,
  u8,
  u16,
  u32,
  u64,
} from './integers.js'
export { DeviceStateLoader, type LoadPhase } from './loader.js'
export { DeviceStateSaver, type SaveOptions } from './saver.js'
export {
  type PointerOptions,
  pointer,
  type StructOptions,
  struct,
  type TmpOptions,
  validate,
  withTmp,
} from './structures.js'
