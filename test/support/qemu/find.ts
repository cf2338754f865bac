// Finds the QEMUs that tests run against, and says what a test does where one is missing.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'
import type { Test } from 'tap'

export type QemuVersion = '7.2' | '10.0'

export const qemuVersions: readonly QemuVersion[] = ['7.2', '10.0']

export interface QemuInstall {
  version: QemuVersion
  /** What `--version` says, for example `7.2.22`. */
  release: string
  binary: string
  /** Arguments it needs to find its own ROM images. */
  args: string[]
}

const program = 'qemu-system-x86_64'

let found: QemuInstall[] | undefined

/**
 * The QEMUs of this machine, at most one a version. MULTIFD_QEMU_7 and MULTIFD_QEMU_10 name a binary, or a folder
 * that a distribution package was unpacked into; otherwise the PATH and /opt/qemu-VERSION are looked at.
 */
export function qemus(): QemuInstall[] {
  if (found) return found
  const installs: QemuInstall[] = []
  for (const binary of candidates()) {
    const install = probe(binary)
    if (install && !installs.some((other) => other.version === install.version)) installs.push(install)
  }
  found = installs
  return installs
}

export function findQemu(version: QemuVersion): QemuInstall | undefined {
  return qemus().find((install) => install.version === version)
}

/** True where tests that need a QEMU must fail, not be skipped, because it is missing. */
export function qemuIsRequired(): boolean {
  const { MULTIFD_REQUIRE_QEMU } = process.env
  return MULTIFD_REQUIRE_QEMU === '1'
}

/**
 * True when every version asked for is installed. Otherwise marks the test as skipped (failed under
 * MULTIFD_REQUIRE_QEMU=1), says which one is missing, and the caller returns.
 */
export function requireQemu(t: Test, ...versions: QemuVersion[]): boolean {
  let complete = true
  for (const version of new Set(versions)) {
    if (findQemu(version)) continue
    complete = false
    if (qemuIsRequired()) t.fail(`QEMU ${version} is not installed, and MULTIFD_REQUIRE_QEMU=1 asks for it`)
    else t.pass(`QEMU ${version} is not installed: skipped`, { skip: `QEMU ${version} is not installed: skipped` })
  }
  return complete
}

/**
 * True when `version` can be the source of a running guest. QEMU 7.2 under TCG loses a guest's last writes: there is
 * nothing right to compare with, so without KVM the test is skipped, and never failed.
 */
export function requireRunningSource(t: Test, version: QemuVersion): boolean {
  if (version !== '7.2' || kvmWorks()) return true
  const message = "QEMU 7.2 without KVM loses a running guest's last writes: skipped"
  t.comment(message)
  t.pass(message, { skip: message })
  return false
}

let kvm: boolean | undefined

/** True when the QEMUs that are installed can start a guest under KVM. MULTIFD_ACCEL=tcg does without. */
export function kvmWorks(): boolean {
  const { MULTIFD_ACCEL } = process.env
  kvm ??= MULTIFD_ACCEL !== 'tcg' && isWritable('/dev/kvm') && qemus().length > 0 && qemus().every(startsUnderKvm)
  return kvm
}

function startsUnderKvm({ binary, args }: QemuInstall): boolean {
  const run = spawnSync(
    binary,
    [
      ...args,
      '-machine',
      'pc',
      '-accel',
      'kvm',
      '-S',
      '-nodefaults',
      '-display',
      'none',
      '-vga',
      'none',
      '-qmp',
      'stdio',
    ],
    { input: '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n', timeout: 20_000, killSignal: 'SIGKILL' },
  )
  return run.status === 0
}

function* candidates(): Generator<string> {
  const { MULTIFD_QEMU_7, MULTIFD_QEMU_10, PATH = '' } = process.env
  for (const place of [MULTIFD_QEMU_7, MULTIFD_QEMU_10]) if (place) yield inside(resolve(place))
  for (const folder of PATH.split(delimiter)) if (folder) yield join(folder, program)
  for (const version of qemuVersions) yield inside(`/opt/qemu-${version}`)
}

function inside(place: string): string {
  return existsSync(place) && statSync(place).isDirectory() ? join(place, 'usr/bin', program) : place
}

function probe(binary: string): QemuInstall | undefined {
  if (!existsSync(binary)) return undefined
  const { stdout } = spawnSync(binary, ['--version'], { encoding: 'utf8', timeout: 20_000 })
  const release = /QEMU emulator version ((\d+\.\d+)\.\d+)/.exec(stdout ?? '')
  const version = qemuVersions.find((known) => known === release?.[2])
  return version && release ? { version, release: release[1]!, binary, args: romFolders(binary) } : undefined
}

/** A binary that was unpacked outside /usr finds its data only when told; the BIOS images may lie beside it or not. */
function romFolders(binary: string): string[] {
  const share = join(dirname(dirname(resolve(binary))), 'share')
  if (share === '/usr/share') return []
  const folders = [join(share, 'qemu'), join(share, 'seabios')].filter((folder) => existsSync(folder))
  return folders.flatMap((folder) => ['-L', folder])
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}
