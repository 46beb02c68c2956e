/** The `key=value` strings of a module's .modinfo section. */
export function modinfo(elf: Buffer): string[];

/** The modules of one kernel. */
export class ModuleTree {
  /** @param directory `/lib/modules/<version>` of the kernel's package */
  constructor(directory: string);
  /** The named modules and all they need, in the order to load them. */
  loadOrder(names: string[]): { name: string; data: Buffer }[];
}
