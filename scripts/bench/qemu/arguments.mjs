// The QEMU command line: the least machine that has what kvmsnap's full one has (interrupt controllers,
// PIT, RTC, a serial port), without firmware.

// QEMU reads a comma in an option's value as the next option, unless it is doubled.
const escapeComma = (text) => text.replaceAll(',', ',,');

/**
 * `ram`: `{ path, share }`, a file for the guest's memory. `disk`: a qcow2 file to keep snapshots in.
 * `wait`: 'paused' does not start the guest, 'incoming' expects a migration.
 */
export function qemuArguments({ accel, firmware, memoryMiB, sockets, ram, disk, wait }) {
  const socket = (id, path) => `socket,id=${id},path=${escapeComma(path)},server=on,wait=off`;
  const backend = ram
    ? [
        '-object',
        `memory-backend-file,id=ram,size=${memoryMiB}M,mem-path=${escapeComma(ram.path)},share=${ram.share ? 'on' : 'off'}`,
      ]
    : [];
  const waiting = { paused: ['-S'], incoming: ['-S', '-incoming', 'defer'] };
  return [
    ...['-accel', accel, '-M', `microvm,pic=on,pit=on,rtc=on${ram ? ',memory-backend=ram' : ''}`],
    ...['-m', String(memoryMiB), ...backend, '-bios', firmware],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-chardev', socket('serial', sockets.serial), '-serial', 'chardev:serial'],
    ...['-chardev', socket('monitor', sockets.monitor), '-mon', 'chardev=monitor,mode=control'],
    ...(disk
      ? [
          '-blockdev',
          `driver=qcow2,node-name=disk,file.driver=file,file.filename=${escapeComma(disk)}`,
        ]
      : []),
    ...(wait === undefined ? [] : waiting[wait]),
  ];
}
