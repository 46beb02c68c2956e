// The contract between the guests of this folder and their host: ports, commands, and where each
// word of a guest's data page lies. C, C++ and GNU assembler (.S) include it, so it holds nothing
// but numbers. Self-contained on purpose: lib/native/guests.ts has the same numbers for JavaScript.
#ifndef KVMSNAP_GUEST_ABI_H_
#define KVMSNAP_GUEST_ABI_H_

// Raised whenever a number below changes its meaning. Guests store it at GUEST_VERSION.
#define GUEST_ABI_VERSION 1

// Where guests lie. ELF guests run at GUEST_TEXT; all use the data page at GUEST_DATA, except flat
// real-mode ones (below), which are loaded at GUEST_REAL_TEXT and have theirs at GUEST_REAL_DATA.
// Memory from GUEST_PAGES on is what the touching guests write. Page tables, descriptor tables and
// stacks are the host's, anywhere in [0x1000, 0x9f000) that a guest does not load to.
#define GUEST_TEXT 0x100000
#define GUEST_DATA 0x180000
#define GUEST_DATA_SIZE 0x3000
#define GUEST_PAGES 0x200000
#define GUEST_REAL_TEXT 0x8000
#define GUEST_REAL_DATA 0x9000
// What escape looks at: 2 MiB there and 2 MiB behind.
#define GUEST_ESCAPE_VIEW 0x800000
// RAM that does not fit below the 32-bit hole goes on at GUEST_HIGH_START.
#define GUEST_LOW_END 0xc0000000
#define GUEST_HIGH_START 0x100000000

// Ports.
#define GUEST_PORT_READY 0xe9    // out: set-up is done (the VMM's debug port)
#define GUEST_PORT_PASS 0xea     // out: one pass over memory is done
#define GUEST_PORT_COMMAND 0xeb  // in: the host's next command; idle answers are 0 and 0xff
#define GUEST_PORT_EXIT 0xf4     // out: ends the machine with this code
#define GUEST_PORT_SERIAL 0x3f8  // COM1, IRQ 4

// Exit codes.
#define GUEST_EXIT_OK 0
#define GUEST_EXIT_MISMATCH 0x51     // a register or a memory word was not what it had to be
#define GUEST_EXIT_UNEXPECTED 0x52   // an interrupt or exception that the guest never asked for
#define GUEST_EXIT_UNSUPPORTED 0x53  // the CPU lacks what the guest was told to use

// Commands, through GUEST_PORT_COMMAND or the word at GUEST_COMMAND, whichever the guest reads.
#define GUEST_COMMAND_GO 1      // pattern: verify; others: leave the waiting phase
#define GUEST_COMMAND_REFILL 2  // pattern: the next seed
#define GUEST_COMMAND_EXIT 3    // write GUEST_EXIT_OK to GUEST_PORT_EXIT

// Offsets in the data page: u64 each.
#define GUEST_MAGIC 0x00     // "KVMSNAPG", stored once GUEST_VERSION is
#define GUEST_VERSION 0x08   // GUEST_ABI_VERSION
#define GUEST_COUNT 0x10     // what the guest counts: lines, passes, checks, ticks, bytes
#define GUEST_ERRORS 0x18    // mismatches found; 0 unless something went wrong
#define GUEST_PHASE 0x20     // GUEST_PHASE_*
#define GUEST_COMMAND 0x28   // written by the host, consumed (set to 0) by the guest
#define GUEST_CHECKSUM 0x30  // pattern: sum of all words
#define GUEST_SEED 0x38      // pattern: what the present content derives from
#define GUEST_CURSOR 0x40    // writer: pages written since the start
#define GUEST_SALT 0x48      // writer: written by the host, so that clones write different data
#define GUEST_FEATURES 0x50  // registers: GUEST_FEATURE_*
#define GUEST_SENT 0x58      // counter: characters of the present line that are sent
#define GUEST_LENGTH 0x60    // counter: characters of the present line; serial-irq: bytes received
#define GUEST_EXTRA 0x68     // per guest
#define GUEST_LINE 0x80      // counter: the present line, ASCII
#define GUEST_SCRATCH 0x100  // per guest, 0x700 bytes
// One u64 for each interrupt vector: how many times its handler ran.
#define GUEST_VECTORS 0x800
// One 64-byte line for each vCPU, its count in the first u64 (smp, smp-ring3), or GUEST_ROUND_*
// (dirtier, jobs); ports: operations; serial-irq: received bytes.
#define GUEST_LINES 0x1000

// Offsets in a line of a guest that works in rounds: u64 each.
#define GUEST_ROUND_COMMAND 0x00
#define GUEST_ROUND_DONE 0x08     // rounds done
#define GUEST_ROUND_BASE 0x10     // address of the first page
#define GUEST_ROUND_RANGE 0x18    // pages to choose from
#define GUEST_ROUND_COUNT 0x20    // pages to write
#define GUEST_ROUND_SEED 0x28     // of the random order; 0: in order
#define GUEST_ROUND_JOURNAL 0x30  // address of u64 for each page written; 0: none
#define GUEST_ROUND_WRITTEN 0x38  // pages written in this round

// Phases.
#define GUEST_PHASE_START 0
#define GUEST_PHASE_RUNNING 1
#define GUEST_PHASE_WAITING 2  // interrupts off, one (or more) pending; waits for GUEST_COMMAND_GO
#define GUEST_PHASE_DONE 3

#define GUEST_FEATURE_SSE 1
#define GUEST_FEATURE_AVX 2

#endif  // KVMSNAP_GUEST_ABI_H_
