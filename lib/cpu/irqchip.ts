/**
 * In-kernel interrupt controllers, timer and clock of a VM: KVM_GET_IRQCHIP, KVM_GET_PIT2,
 * KVM_GET_CLOCK and their setters (Documentation/virt/kvm/api.rst).
 */
import {
  array,
  bits64,
  type Decoded,
  type Patch,
  pad,
  s64,
  struct,
  u8,
  u16,
  u32,
  u64,
} from './struct.js';

/** `kvm_irqchip.chip_id`. */
export const KVM_IRQCHIP = { PIC_MASTER: 0, PIC_SLAVE: 1, IOAPIC: 2 } as const;
export const KVM_IOAPIC_NUM_PINS = 24;
/** Bytes of `struct kvm_irqchip`: chip_id, pad, and a union of 512. */
export const KVM_IRQCHIP_SIZE = 520;

/** `struct kvm_pic_state`: one 8259A. */
export const KVM_PIC_STATE = struct('kvm_pic_state', {
  /** Line levels at the last look, for edge detection. */
  last_irr: u8,
  irr: u8,
  imr: u8,
  isr: u8,
  /** Which line has the highest priority, minus one turn. */
  priority_add: u8,
  /** Vector of line 0 (ICW2). */
  irq_base: u8,
  read_reg_select: u8,
  poll: u8,
  special_mask: u8,
  /** How far the ICW sequence is; 0: done. */
  init_state: u8,
  auto_eoi: u8,
  rotate_on_auto_eoi: u8,
  special_fully_nested_mode: u8,
  /** 1: ICW1 asked for ICW4. */
  init4: u8,
  /** Edge/level control: a set bit is a level-triggered line. */
  elcr: u8,
  elcr_mask: u8,
});

/** One IOAPIC redirection entry (82093AA datasheet, 3.2.4), by `kvm_ioapic_state` field name. */
export const IOAPIC_REDIRECTION = bits64({
  vector: [0, 8],
  /** 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT. */
  delivery_mode: [8, 3],
  /** 0 physical, 1 logical. */
  dest_mode: [11, 1],
  delivery_status: [12, 1],
  /** 1: active low. */
  polarity: [13, 1],
  /** Level-triggered: accepted by a LAPIC, EOI awaited. */
  remote_irr: [14, 1],
  /** 0 edge, 1 level. */
  trig_mode: [15, 1],
  mask: [16, 1],
  dest_id: [56, 8],
});

/** `struct kvm_ioapic_state`. */
export const KVM_IOAPIC_STATE = struct('kvm_ioapic_state', {
  base_address: u64,
  ioregsel: u32,
  id: u32,
  /** Pins that are asserted. */
  irr: u32,
  pad: pad(4),
  redirtbl: array(IOAPIC_REDIRECTION, KVM_IOAPIC_NUM_PINS),
});

/** `struct kvm_irqchip` of either PIC. */
export const KVM_IRQCHIP_PIC = struct(
  'kvm_irqchip',
  { chip_id: u32, pad: pad(4), pic: KVM_PIC_STATE },
  KVM_IRQCHIP_SIZE,
);
export interface PicChip extends Decoded<typeof KVM_IRQCHIP_PIC> {}

/** `struct kvm_irqchip` of the IOAPIC. */
export const KVM_IRQCHIP_IOAPIC = struct(
  'kvm_irqchip',
  { chip_id: u32, pad: pad(4), ioapic: KVM_IOAPIC_STATE },
  KVM_IRQCHIP_SIZE,
);
export interface IoapicChip extends Decoded<typeof KVM_IRQCHIP_IOAPIC> {}

/** `struct kvm_pit_state2`: the 8254. */
export const KVM_PIT_STATE2 = struct('kvm_pit_state2', {
  channels: array(
    struct('kvm_pit_channel_state', {
      /** Reload value, 1 to 65536. */
      count: u32,
      latched_count: u16,
      count_latched: u8,
      status_latched: u8,
      status: u8,
      read_state: u8,
      write_state: u8,
      write_latch: u8,
      rw_mode: u8,
      mode: u8,
      bcd: u8,
      gate: u8,
      /**
       * Nanoseconds of the host's monotonic clock; of channels 1 and 2 only. KVM_SET_PIT2 restarts it
       * at the time of the call.
       */
      count_load_time: s64,
    }),
    3,
  ),
  /** Bit 0: HPET legacy mode. Bit 1: speaker data on. */
  flags: u32,
  reserved: pad(36),
});
export interface Pit extends Decoded<typeof KVM_PIT_STATE2> {}

/** `kvm_clock_data.flags`. */
export const KVM_CLOCK_FLAGS = { TSC_STABLE: 2, REALTIME: 4, HOST_TSC: 8 } as const;

/** `struct kvm_clock_data`. */
export const KVM_CLOCK_DATA = struct('kvm_clock_data', {
  /** kvmclock, in nanoseconds. */
  clock: u64,
  /** `KVM_CLOCK_FLAGS`: what else is valid. */
  flags: u32,
  pad0: pad(4),
  /** Host CLOCK_REALTIME at the same instant, in nanoseconds. */
  realtime: u64,
  /** Host TSC at the same instant. */
  host_tsc: u64,
  pad: pad(16),
});
export interface ClockData extends Decoded<typeof KVM_CLOCK_DATA> {}

export const decodePic = (raw: Uint8Array): PicChip => KVM_IRQCHIP_PIC.decode(raw);
export const encodePic = (patch: Patch<PicChip>, base?: Uint8Array): Uint8Array =>
  KVM_IRQCHIP_PIC.encode(patch, base);
export const decodeIoapic = (raw: Uint8Array): IoapicChip => KVM_IRQCHIP_IOAPIC.decode(raw);
export const encodeIoapic = (patch: Patch<IoapicChip>, base?: Uint8Array): Uint8Array =>
  KVM_IRQCHIP_IOAPIC.encode(patch, base);
export const decodePit = (raw: Uint8Array): Pit => KVM_PIT_STATE2.decode(raw);
export const encodePit = (patch: Patch<Pit>, base?: Uint8Array): Uint8Array =>
  KVM_PIT_STATE2.encode(patch, base);
export const decodeClock = (raw: Uint8Array): ClockData => KVM_CLOCK_DATA.decode(raw);
export const encodeClock = (patch: Patch<ClockData>, base?: Uint8Array): Uint8Array =>
  KVM_CLOCK_DATA.encode(patch, base);
