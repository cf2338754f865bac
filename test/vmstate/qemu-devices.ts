// Descriptions of our own for devices of real QEMU guests, with the state that each is for.

import {
  array,
  bitmap,
  buffer,
  type Description,
  describe,
  END_OF_LIST,
  type Field,
  i32,
  i64,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  withTmp,
} from '../../src/vmstate/index.js'

export const timers = describe({
  name: 'timer',
  versionId: 2,
  minimumVersionId: 1,
  fields: [
    i64('cpu_ticks_offset', { key: 'cpuTicksOffset' }),
    unused(8),
    i64('cpu_clock_offset', { key: 'cpuClockOffset', version: 2 }),
    END_OF_LIST,
  ],
})

export const rtc = describe({
  name: 'mc146818rtc',
  versionId: 3,
  minimumVersionId: 1,
  fields: [
    buffer('cmos_data', 128),
    u8('cmos_index'),
    unused(7 * 4),
    timer('periodic_timer'),
    i64('next_periodic_time'),
    unused(3 * 8),
    u32('irq_coalesced', { version: 2 }),
    u32('period', { version: 2 }),
    u64('base_rtc', { version: 3 }),
    u64('last_update', { version: 3 }),
    i64('offset', { version: 3 }),
    timer('update_timer', { version: 3 }),
    u64('next_alarm_time', { version: 3 }),
    END_OF_LIST,
  ],
})

export const apic = describe({
  name: 'apic',
  versionId: 3,
  fields: [
    u32('apicbase'),
    u8('id'),
    u8('arb_id'),
    u8('tpr'),
    u32('spurious_vec'),
    u8('log_dest'),
    u8('dest_mode'),
    array(u32('isr'), 8),
    array(u32('tmr'), 8),
    array(u32('irr'), 8),
    array(u32('lvt'), 6),
    u32('esr'),
    array(u32('icr'), 2),
    u32('divide_conf'),
    i32('count_shift'),
    u32('initial_count'),
    i64('initial_count_load_time'),
    i64('next_time'),
    i64('timer_expiry'),
    END_OF_LIST,
  ],
})

interface Fifo {
  data: Uint8Array
  head: number
  num: number
}

/** A UART as a program would have it: some of what is carried is there in some states only. */
export interface Uart {
  divider: number
  rbr: number
  ier: number
  iir: number
  lcr: number
  mcr: number
  lsr: number
  msr: number
  scr: number
  fcr_vmstate: number
  thrIpending: number | undefined
  timeoutIpending: number | undefined
  recvFifo: Fifo
}

export const newUart = (): Uart => ({
  divider: 0,
  rbr: 0,
  ier: 0,
  iir: 0,
  lcr: 0,
  mcr: 0,
  lsr: 0,
  msr: 0,
  scr: 0,
  fcr_vmstate: 0,
  thrIpending: undefined,
  timeoutIpending: undefined,
  recvFifo: { data: new Uint8Array(16), head: 0, num: 0 },
})

const fifo = describe<Fifo>({
  name: 'Fifo8',
  fields: [buffer('data', (state: Fifo) => state.data.length), u32('head'), u32('num'), END_OF_LIST],
})

const uart = describe<Uart>({
  name: 'serial',
  versionId: 3,
  minimumVersionId: 2,
  fields: [
    u16('divider'),
    u8('rbr'),
    u8('ier'),
    u8('iir'),
    u8('lcr'),
    u8('mcr'),
    u8('lsr'),
    u8('msr'),
    u8('scr'),
    u8('fcr_vmstate', { version: 3 }),
    END_OF_LIST,
  ],
  subsections: [
    optionalInt('serial/thr_ipending', 'thr_ipending', 'thrIpending'),
    describe<Uart>({
      name: 'serial/recv_fifo',
      needed: ({ recvFifo }) => recvFifo.num > 0,
      fields: [struct('recv_fifo', fifo, { key: 'recvFifo' }), END_OF_LIST],
    }),
    optionalInt('serial/timeout_ipending', 'timeout_ipending', 'timeoutIpending'),
  ],
})

/** A number that is there while it means something. */
function optionalInt(name: string, field: string, key: 'thrIpending' | 'timeoutIpending'): Description<Uart> {
  return describe<Uart>({
    name,
    needed: (state) => state[key] !== undefined,
    fields: [i32(field, { key }) as Field<Uart>, END_OF_LIST],
  })
}

export const serial = describe({
  name: 'serial',
  versionId: 3,
  fields: [struct('state', uart, { create: newUart }), END_OF_LIST],
})

export interface VirtioMem {
  addr: bigint
  regionSize: bigint
  blockSize: bigint
  node: number
  size: bigint
  bitmap: Uint8Array
}

/** What must be the same on both sides: compared once it has come. */
interface SanityChecks {
  parent: VirtioMem
  addr: bigint
  region_size: bigint
  block_size: bigint
  node: number
}

const sanityChecks = describe<SanityChecks>({
  name: 'virtio-mem-device/sanity-checks',
  versionId: 0,
  fields: [u64('addr'), u64('region_size'), u64('block_size'), u32('node'), END_OF_LIST],
  preSave(tmp) {
    const { addr, regionSize, blockSize, node } = tmp.parent
    Object.assign(tmp, { addr, region_size: regionSize, block_size: blockSize, node })
  },
  postLoad({ parent, addr, region_size, block_size, node }) {
    if (addr !== parent.addr) throw new Error(`property 'memaddr' changed from ${parent.addr} to ${addr}`)
    if (region_size !== parent.regionSize) throw new Error('size of the region changed')
    if (block_size !== parent.blockSize) throw new Error('size of a block changed')
    if (node !== parent.node) throw new Error('node changed')
  },
})

export const virtioMemEarly = describe({
  name: 'virtio-mem-device-early',
  early: true,
  fields: [
    withTmp(sanityChecks, {
      create: (parent: VirtioMem) => ({ parent, addr: 0n, region_size: 0n, block_size: 0n, node: 0 }),
    }),
    u64('size'),
    bitmap('bitmap', { bits: ({ regionSize, blockSize }: VirtioMem) => Number(regionSize / blockSize) }),
    END_OF_LIST,
  ],
})
