/** An initramfs in the making, in "newc" format. */
export class CpioArchive {
  directory(path: string, mode?: number): this;
  file(path: string, data: string | Uint8Array, mode?: number): this;
  symlink(path: string, target: string): this;
  characterDevice(path: string, major: number, minor: number, mode?: number): this;
  toBuffer(): Buffer;
}
