// What a report was measured on.

import { readFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { openLibrary } from '../../src/os/libc.js'
import { qemus } from '../../test/support/qemu/find.js'

const PACKAGES = ['koffi', 'piscina', 'msgpackr'] as const

export interface MachineFacts {
  cpu: string
  cores: number
  memoryGiB: number
  kernel: string
  node: string
  qemu: string[]
  /** Versions by name: of what Node has inside, of the system's zstd, of the packages that take part. */
  libraries: Record<string, string>
}

export function machineFacts(): MachineFacts {
  const cores = cpus()
  const { zlib = '', openssl = '', v8 = '' } = process.versions
  return {
    cpu: cores[0]?.model ?? 'unknown',
    cores: cores.length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    qemu: qemus().map(({ release }) => release),
    libraries: { v8, zlib, openssl, zstd: zstdVersion(), ...Object.fromEntries(PACKAGES.map(versionOf)) },
  }
}

/** On one line, without the libraries. */
export function machineLine({ cpu, cores, memoryGiB, kernel, node, qemu }: MachineFacts): string {
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB; Linux ${kernel}; Node ${node}; QEMU ${qemu.join(', ') || '(none)'}`
}

export function librariesLine({ libraries }: MachineFacts): string {
  return Object.entries(libraries)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ')
}

/** What the memory has room for at the moment, bytes. */
export function availableMemory(): number {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))
  return Number(line?.[1] ?? 0) * 1024
}

function zstdVersion(): string {
  try {
    const declarations = { ZSTD_versionString: 'const char *ZSTD_versionString()' }
    return openLibrary<{ ZSTD_versionString(): string }>('libzstd.so.1', declarations).ZSTD_versionString()
  } catch {
    return '(none)'
  }
}

function versionOf(name: string): [string, string] {
  // From dist/bench/report: a package need not export its package.json.
  const file = new URL(`../../../node_modules/${name}/package.json`, import.meta.url)
  return [name, (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version]
}
