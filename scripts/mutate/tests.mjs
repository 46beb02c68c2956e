// Which tests would find a fault in which source file: native ones first, which take a second, then few and short
// ones of vitest's. The first row that fits counts.

const kvm = (...names) => names.map((name) => `test/kvm/${name}.test.ts`);

const ROWS = [
  [
    /devices\/(rtc_time|cmos)/,
    ['cmos_test', 'rtc_time_test', 'conformance_test'],
    kvm('snapshot/round-trip'),
  ],
  [
    /devices\/serial/,
    ['serial_test', 'serial_driver_test', 'conformance_test'],
    kvm('interrupts/serial'),
  ],
  [
    /devices\//,
    ['conformance_test', 'i8042_test', 'ports_test'],
    kvm('snapshot/round-trip', 'vm/stop'),
  ],

  [
    /memory\/tracker|memory\/userfault/,
    ['tracker_test', 'guest_memory_test'],
    kvm('dirty/lifecycle'),
  ],
  [/memory\/(pager|page_source)/, ['pager_test'], kvm('restore-on-demand/failures')],
  [/memory\/late_copy/, ['late_copy_test', 'guest_memory_test'], kvm('fork/late')],
  [/memory\/(sha256|crc32c)/, ['sha256_test', 'crc32c_test', 'image_writer_test'], []],
  [/memory\/flatten/, ['flatten_test', 'guest_memory_test'], kvm('fork/layers')],
  [
    /memory\/(image|compose|copy_ranges|provenance|backing_file)/,
    [
      'image_test',
      'image_writer_test',
      'compose_test',
      'provenance_test',
      'flatten_test',
      'guest_memory_test',
    ],
    kvm('snapshot/freeze', 'fork/reset'),
  ],
  [
    /memory\//,
    [
      'guest_memory_test',
      'host_runs_test',
      'page_map_test',
      'image_test',
      'late_copy_test',
      'flatten_test',
    ],
    kvm('snapshot/freeze', 'fork/reset', 'fork/fork'),
  ],

  [/vmm\/confinement/, ['confinement_test'], kvm('fork/confined')],
  [/vmm\/crew/, ['crew_test', 'machine_test'], kvm('vm/lifecycle')],
  [/vmm\/clock_policy/, ['clock_policy_test', 'machine_test'], []],
  [
    /vmm\/(dirty|kvm_trackers|memory_slots)/,
    ['machine_test'],
    kvm('dirty/lifecycle', 'slots/dirty-log'),
  ],
  [
    /vmm\/(lapic_timer|pit_state|vm_state)/,
    ['machine_test'],
    kvm('interrupts/timers', 'registers/sections'),
  ],
  [
    /vmm\/(vcpu|saveable_msrs|deferred|translations|machine_state)/,
    ['machine_test'],
    kvm('registers/sections', 'registers/msrs', 'fork/reset', 'fork/confined', 'interrupts/timers'),
  ],
  [/vmm\/machine_reset/, ['machine_test'], kvm('fork/reset', 'fork/pool', 'fork/secrets')],
  [/vmm\/machine_paging/, ['machine_test'], kvm('restore-on-demand/failures')],
  [
    /vmm\/(io_bus|exit|device|output)/,
    ['machine_test'],
    kvm('claims/ports', 'claims/handlers', 'vm/stop'),
  ],
  [
    /./,
    ['machine_test', 'crew_test'],
    kvm('vm/lifecycle', 'vm/stop', 'fork/reset', 'claims/handlers'),
  ],
];

/** The names of native tests, and files of vitest's. */
export function testsFor(file) {
  const [, native, vitest] = ROWS.find(([pattern]) => pattern.test(file));
  return { native, vitest };
}

/** What is tried first: where state is kept, put back, frozen, and where writes are seen. */
const FIRST = [
  /vmm\/(confinement|machine_reset|machine_state|vcpu_|vm_state|pit_state|lapic_timer|saveable|deferred|clock)/,
  /(memory|vmm)\/(tracker|dirty|kvm_trackers|region|guest_memory|late_copy|page_scan|userfault)/,
];

/** 0 for those that are tried first. */
export function rankOf(file) {
  const rank = FIRST.findIndex((pattern) => pattern.test(file));
  return rank < 0 ? FIRST.length : rank;
}
