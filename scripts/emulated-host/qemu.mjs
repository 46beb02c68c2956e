// The QEMU command line of the emulated host. Each setting is the one found reliable; docs/testing.md
// says what goes wrong otherwise.

const KERNEL_PARAMETERS = [
  'console=ttyS0',
  'quiet',
  'panic=-1', // with -no-reboot, a panic ends QEMU at once
  'oops=panic', // an oops leaves locks held: better a failure now than a hang later
  'mitigations=off',
  'nokaslr',
  'tsc=reliable',
  'cryptomgr.notests',
  'sysrq_always_enabled', // for the report on a hang,
  'unknown_nmi_panic', // and for one with interrupts off
];

// QEMU reads a comma in an option's value as the next option, unless it is doubled.
const escapeComma = (path) => path.replaceAll(',', ',,');

/** Ports of the virtio console: the n-th here is /dev/vport0p<n> inside. */
export const PORTS = ['stdout', 'stderr', 'control'];

export function qemuArguments({ vmlinux, initramfs, memoryMiB, share, sockets }) {
  const socket = (name) => `socket,id=${name},path=${escapeComma(sockets[name])}`;
  const fileSystem = (tag, path, options) => [
    '-virtfs',
    `local,path=${escapeComma(path)},mount_tag=${tag},security_model=none,multidevs=remap${options}`,
  ];
  return [
    ...['-accel', 'tcg,thread=single', '-smp', '1', '-m', String(memoryMiB)],
    ...['-M', 'q35', '-cpu', 'EPYC,+svm,+npt'],
    ...['-nodefaults', '-display', 'none', '-no-reboot'],
    ...['-kernel', vmlinux, '-initrd', initramfs, '-append', KERNEL_PARAMETERS.join(' ')],
    ...['-chardev', socket('serial'), '-serial', 'chardev:serial'],
    ...['-chardev', socket('monitor'), '-mon', 'chardev=monitor,mode=control'],
    ...['-device', 'virtio-serial-pci'],
    ...PORTS.flatMap((name, index) => [
      ...['-chardev', socket(name)],
      ...['-device', `virtserialport,chardev=${name},nr=${index + 1},name=kvmsnap.${name}`],
    ]),
    ...fileSystem('host', '/', ',readonly=on'),
    ...(share === undefined ? [] : fileSystem('share', share, '')),
  ];
}
