// Collects the description that ends a stream, from its first section on: early sections are in it too.

import { viewOf } from '../wire/bytes.js'
import type { Configuration } from '../wire/stream.js'
import { encodeEof, encodeVmdescHeader, MAX_VMDESC_SIZE } from '../wire/stream.js'
import type { Vmdesc, VmdescDevice, VmdescVmsd } from '../wire/vmdesc.js'
import { deviceError } from './context.js'

export class VmdescWriter {
  readonly #vmdesc: Vmdesc

  /**
   * @param pageSize bytes of a target page
   * @param configuration what the stream's configuration section says; without it, as QEMU up to 8.1, it is not described
   */
  constructor(pageSize: number, configuration?: Configuration) {
    this.#vmdesc = {
      ...(configuration === undefined ? {} : { configuration: describeConfiguration(configuration) }),
      page_size: pageSize,
      devices: [],
    }
  }

  /** Takes the next section's description. */
  add(device: VmdescDevice): void {
    this.#vmdesc.devices.push(device)
  }

  /** The JSON, as UTF-8. Throws ERR_MULTIFD_DEVICE when it is larger than is read. */
  json(): Uint8Array {
    const json = new TextEncoder().encode(JSON.stringify(this.#vmdesc))
    if (json.length > MAX_VMDESC_SIZE) {
      throw deviceError(`the devices' description has ${json.length} bytes, expected at most ${MAX_VMDESC_SIZE}`)
    }
    return json
  }

  /** What follows the last section: the mark that ends device state, and the description. */
  streamEnd(): Uint8Array {
    const json = this.json()
    const end = new Uint8Array(1 + 5 + json.length)
    const view = viewOf(end)
    end.set(json, encodeVmdescHeader(view, encodeEof(view, 0), json.length))
    return end
  }
}

/** The configuration section, as QEMU from 8.2 on describes it. */
function describeConfiguration({ machineType, pageBits, capabilities, uuid }: Configuration): VmdescVmsd {
  const subsections: VmdescVmsd[] = []
  const part = (name: string, fields: VmdescVmsd['fields']) =>
    subsections.push({ vmsd_name: `configuration/${name}`, version: 1, fields })
  if (pageBits !== undefined) part('target-page-bits', [{ name: 'page_bits', type: 'uint32', size: 4 }])
  if (capabilities !== undefined) part('capabilities', describeCapabilities(capabilities))
  if (uuid !== undefined) part('uuid', [{ name: 'uuid.data', array_len: 16, type: 'uint8', size: 1 }])
  return {
    vmsd_name: 'configuration',
    version: 1,
    fields: [
      { name: 'len', type: 'uint32', size: 4 },
      { name: 'name', type: 'buffer', size: machineType.length },
    ],
    ...(subsections.length > 0 ? { subsections } : {}),
  }
}

function describeCapabilities(capabilities: readonly string[]): VmdescVmsd['fields'] {
  const fields: VmdescVmsd['fields'] = [{ name: 'caps_count', type: 'uint32', size: 4 }]
  // Described once where they are of one size, as arrays are.
  const sizes = [...new Set(capabilities.map((name) => 1 + name.length))]
  const entry = (size: number) => ({ type: 'capability', size })
  if (capabilities.length === 1) fields.push({ name: 'capabilities', ...entry(sizes[0]!) })
  else if (sizes.length === 1) {
    fields.push({ name: 'capabilities', array_len: capabilities.length, ...entry(sizes[0]!) })
  } else {
    for (const [index, name] of capabilities.entries()) {
      fields.push({ name: 'capabilities', index, ...entry(1 + name.length) })
    }
  }
  return fields
}
