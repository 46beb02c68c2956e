/**
 * What native/guest/abi.h says, for JavaScript: ports, commands, and where each word of a guest's
 * data page lies. A unit test holds the two against each other.
 */
export const GUEST_ABI = {
  ABI_VERSION: 1,

  /** Guest physical addresses. */
  TEXT: 0x100000n,
  DATA: 0x180000n,
  DATA_SIZE: 0x3000,
  /** Memory that touching guests write: from here up. */
  PAGES: 0x200000n,
  ESCAPE_VIEW: 0x800000n,
  /** Load address and data page of flat real-mode guests. */
  REAL_TEXT: 0x8000n,
  REAL_DATA: 0x9000n,
  LOW_END: 0xc0000000n,
  HIGH_START: 0x100000000n,

  PORT_READY: 0xe9,
  PORT_PASS: 0xea,
  PORT_COMMAND: 0xeb,
  PORT_EXIT: 0xf4,
  PORT_SERIAL: 0x3f8,

  EXIT_OK: 0,
  EXIT_MISMATCH: 0x51,
  EXIT_UNEXPECTED: 0x52,
  EXIT_UNSUPPORTED: 0x53,

  COMMAND_GO: 1,
  COMMAND_REFILL: 2,
  COMMAND_EXIT: 3,

  /** Offsets in the data page; each word is a little-endian u64. */
  MAGIC: 0x00,
  VERSION: 0x08,
  COUNT: 0x10,
  ERRORS: 0x18,
  PHASE: 0x20,
  COMMAND: 0x28,
  CHECKSUM: 0x30,
  SEED: 0x38,
  CURSOR: 0x40,
  SALT: 0x48,
  FEATURES: 0x50,
  SENT: 0x58,
  LENGTH: 0x60,
  EXTRA: 0x68,
  LINE: 0x80,
  SCRATCH: 0x100,
  VECTORS: 0x800,
  LINES: 0x1000,

  ROUND_COMMAND: 0x00,
  ROUND_DONE: 0x08,
  ROUND_BASE: 0x10,
  ROUND_RANGE: 0x18,
  ROUND_COUNT: 0x20,
  ROUND_SEED: 0x28,
  ROUND_JOURNAL: 0x30,
  ROUND_WRITTEN: 0x38,

  PHASE_START: 0,
  PHASE_RUNNING: 1,
  PHASE_WAITING: 2,
  PHASE_DONE: 3,

  FEATURE_SSE: 1,
  FEATURE_AVX: 2,
} as const;

/** The u64 at {@link GUEST_ABI}.MAGIC once a guest is ready: "KVMSNAPG", little-endian. */
export const GUEST_MAGIC_VALUE = 0x4750414e534d564bn;
