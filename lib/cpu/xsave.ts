/**
 * The XSAVE area of KVM_GET_XSAVE2 and KVM_SET_XSAVE: x87, SSE and the extended components.
 *
 * KVM gives the standard (non-compacted) format. Where a component lies is told by CPUID leaf 0xD
 * and differs between vendors: a layout goes with every decode. Intel SDM volume 1, chapter 13.
 */
import { KvmsnapError, requireArgument } from '../errors.js';
import type { CpuidEntry } from './cpuid-entries.js';
import {
  array,
  at,
  bytes,
  type Codec,
  type Patch,
  Struct,
  struct,
  u8,
  u16,
  u32,
  u64,
} from './struct.js';

/** Bytes of `struct kvm_xsave` without components that need arch_prctl; KVM never gives less. */
export const KVM_XSAVE_SIZE = 4096;
/** XSAVE components are at most this far: 2816 + 8192 with AMX, and room for what comes. */
const MAX_XSAVE_SIZE = 65536;

/** Legacy region: the FXSAVE format of 64-bit mode, SDM volume 1, table 10-2. */
const LEGACY = struct(
  'legacy',
  {
    fcw: u16,
    fsw: u16,
    /** Abridged tag: a bit is set for each register in use. */
    ftw: u8,
    fop: at(6, u16),
    fip: u64,
    fdp: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    /** ST(0) to ST(7), or MM0 to MM7 in the low 8 bytes. */
    st: at(32, array(bytes(10), 8, 16)),
    xmm: at(160, array(bytes(16), 16)),
  },
  512,
);
const HEADER = struct(
  'header',
  {
    /** Components that are not in their initial configuration. */
    xstate_bv: u64,
    /** Bit 63: compacted format. KVM's is 0. */
    xcomp_bv: u64,
  },
  64,
);

/** Extended components by their bit in XCR0: what they hold, as far as it fills them. */
const COMPONENTS = {
  avx: { bit: 2, codec: struct('avx', { ymm_hi128: array(bytes(16), 16) }) },
  bndregs: {
    bit: 3,
    codec: struct('bndregs', {
      bnd: array(struct('bnd', { lower: u64, upper: u64 }), 4),
    }),
  },
  bndcsr: { bit: 4, codec: struct('bndcsr', { bndcfgu: u64, bndstatus: u64 }) },
  opmask: { bit: 5, codec: struct('opmask', { k: array(u64, 8) }) },
  zmm_hi256: { bit: 6, codec: struct('zmm_hi256', { zmm_hi256: array(bytes(32), 16) }) },
  hi16_zmm: { bit: 7, codec: struct('hi16_zmm', { zmm: array(bytes(64), 16) }) },
  pkru: { bit: 9, codec: struct('pkru', { pkru: u32 }) },
  tilecfg: { bit: 17, codec: struct('tilecfg', { tilecfg: bytes(64) }) },
  tiledata: { bit: 18, codec: struct('tiledata', { tmm: array(bytes(1024), 8) }) },
} as const;

type ComponentName = keyof typeof COMPONENTS;
type ComponentValue<N extends ComponentName> =
  (typeof COMPONENTS)[N]['codec'] extends Codec<infer T> ? T : never;
type LegacyValue = typeof LEGACY extends Codec<infer T> ? T : never;
type HeaderValue = typeof HEADER extends Codec<infer T> ? T : never;

/** A decoded XSAVE area. A component is absent when the layout does not place it. */
export type Xsave = { legacy: LegacyValue; header: HeaderValue } & {
  [N in ComponentName]?: ComponentValue<N>;
};

/** Offset in bytes of each component in the standard format, by XCR0 bit. */
export type XsaveLayout = ReadonlyMap<number, number>;

/** AVX is where both vendors have it; the others lie where leaf 0xD says. */
export const XSAVE_LAYOUT_COMMON: XsaveLayout = new Map([[2, 576]]);
/** Intel CPUs. */
export const XSAVE_LAYOUT_INTEL: XsaveLayout = new Map([
  [2, 576],
  [3, 960],
  [4, 1024],
  [5, 1088],
  [6, 1152],
  [7, 1664],
  [9, 2688],
  [17, 2752],
  [18, 2816],
]);
/** AMD CPUs from Zen 4: no MPX, so what follows is nearer. */
export const XSAVE_LAYOUT_AMD: XsaveLayout = new Map([
  [2, 576],
  [5, 832],
  [6, 896],
  [7, 1408],
  [9, 2432],
]);

/** The layout that a guest's (or host's) CPUID leaf 0xD describes. */
export function xsaveLayout(cpuid: readonly CpuidEntry[]): XsaveLayout {
  const layout = new Map(XSAVE_LAYOUT_COMMON);
  for (const entry of cpuid) {
    const supervisor = entry.ecx & 1;
    if (entry.function === 0xd && entry.index >= 2 && entry.eax > 0 && !supervisor) {
      layout.set(entry.index, entry.ebx);
    }
  }
  return layout;
}

function xsaveStruct(length: number, layout: XsaveLayout): Struct<Xsave> {
  requireArgument(
    length >= KVM_XSAVE_SIZE && length <= MAX_XSAVE_SIZE,
    `kvm_xsave must be ${KVM_XSAVE_SIZE} to ${MAX_XSAVE_SIZE} bytes, got ${length}`,
  );
  const placed = Object.entries(COMPONENTS).flatMap(([name, { bit, codec }]) => {
    const offset = layout.get(bit);
    const fits = offset !== undefined && offset >= 576 && offset + codec.size <= length;
    return fits ? [[name, at(offset, codec as Codec<unknown>)] as const] : [];
  });
  const fields = { legacy: LEGACY, header: at(512, HEADER), ...Object.fromEntries(placed) };
  return new Struct<Xsave>('kvm_xsave', fields, length);
}

/**
 * Decodes an XSAVE area with the components that `layout` places inside it. ERR_INVALID_ARGUMENT
 * for a wrong length or the compacted format, which KVM never gives.
 */
export function decodeXsave(raw: Uint8Array, layout: XsaveLayout = XSAVE_LAYOUT_COMMON): Xsave {
  const value = xsaveStruct(raw.length, layout).decode(raw);
  if (value.header.xcomp_bv >> 63n) {
    throw new KvmsnapError(
      'ERR_INVALID_ARGUMENT',
      'kvm_xsave is in the compacted format (xcomp_bv bit 63); give the standard format, as KVM_GET_XSAVE2 does',
    );
  }
  return value;
}

/**
 * A copy of `base` (default: 4096 zero bytes) with the parts in `patch` put in. A component that
 * is patched gets its bit in `xstate_bv`, without which the CPU would load its initial value;
 * give `header.xstate_bv` to decide otherwise.
 */
export function encodeXsave(
  patch: Patch<Xsave>,
  base: Uint8Array = new Uint8Array(KVM_XSAVE_SIZE),
  layout: XsaveLayout = XSAVE_LAYOUT_COMMON,
): Uint8Array {
  const codec = xsaveStruct(base.length, layout);
  const out = codec.encode(patch, base);
  if (patch.header?.xstate_bv !== undefined) return out;
  const view = new DataView(out.buffer);
  HEADER.write(
    view,
    512,
    { xstate_bv: view.getBigUint64(512, true) | patchedBits(patch) },
    'header',
  );
  return out;
}

function patchedBits(patch: Patch<Xsave>): bigint {
  let bits = 0n;
  const { xmm, mxcsr, mxcsr_mask, ...x87 } = patch.legacy ?? {};
  if (Object.values(x87).some((value) => value !== undefined)) bits |= 1n;
  if ((xmm ?? mxcsr ?? mxcsr_mask) !== undefined) bits |= 2n;
  for (const [name, { bit }] of Object.entries(COMPONENTS)) {
    if (patch[name as ComponentName] !== undefined) bits |= 1n << BigInt(bit);
  }
  return bits;
}
