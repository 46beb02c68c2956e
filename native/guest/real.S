// real: 16-bit real mode, holds known values in the integer and segment registers and checks them.
//
// Entry   flat binary at GUEST_REAL_TEXT (0x8000), entered at its first byte in real mode with
//         cs = 0, ds = 0; ring 0; stack not used.
// Holds   register n has 0x11111111 * n + 0x01234567, n from 1 (eax) in the order
//         eax ebx ecx edx esi edi ebp; es = 0x1234, fs = 0x5678, gs = 0x9abc.
// Memory  the data page is the second page of the binary, at GUEST_REAL_DATA (0x9000).
//         GUEST_COUNT checks passed, GUEST_ERRORS mismatches, GUEST_EXTRA the register found wrong
//         (8 es, 9 fs, 10 gs).
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT with GUEST_EXIT_MISMATCH at a mismatch.
//         GUEST_COMMAND_EXIT at GUEST_COMMAND ends it.
#include "abi.h"
#include "held32.inc"

        .macro  each_segment do
        \do     es, 8, 0x1234
        \do     fs, 9, 0x5678
        \do     gs, 10, 0x9abc
        .endm
        .macro  load_segment reg, n, value
        movw    $\value, %ax
        movw    %ax, %\reg
        .endm
        .macro  check_segment reg, n, value
        movw    %\reg, GUEST_REAL_DATA + GUEST_SCRATCH
        cmpw    $\value, GUEST_REAL_DATA + GUEST_SCRATCH
        jne     wrong\n
        .endm
        .macro  report reg, n, value
wrong\n:
        movw    $\n, GUEST_REAL_DATA + GUEST_EXTRA
        jmp     wrong
        .endm
        .macro  exit_with code
.Lexit\@:
        movb    $\code, %al
        movw    $GUEST_PORT_EXIT, %dx
        outb    %al, %dx
        jmp     .Lexit\@
        .endm

        .code16
        .text
        .globl  _start
_start: movw    $GUEST_PHASE_RUNNING, GUEST_REAL_DATA + GUEST_PHASE
        movw    $GUEST_ABI_VERSION, GUEST_REAL_DATA + GUEST_VERSION
        movl    $0x534d564b, GUEST_REAL_DATA + GUEST_MAGIC         // "KVMS"
        movl    $0x4750414e, GUEST_REAL_DATA + GUEST_MAGIC + 4     // "NAPG"
        movb    $'R', %al
        movw    $GUEST_PORT_READY, %dx
        outb    %al, %dx
        each_segment load_segment
        each_gpr load

again:  movw    $200, GUEST_REAL_DATA + GUEST_SCRATCH
spin:   decw    GUEST_REAL_DATA + GUEST_SCRATCH
        jnz     spin
        each_gpr check
        each_segment check_segment
        addl    $1, GUEST_REAL_DATA + GUEST_COUNT
        adcl    $0, GUEST_REAL_DATA + GUEST_COUNT + 4
        cmpb    $GUEST_COMMAND_EXIT, GUEST_REAL_DATA + GUEST_COMMAND
        jne     again
        exit_with GUEST_EXIT_OK

        each_gpr report
        each_segment report
wrong:  incl    GUEST_REAL_DATA + GUEST_ERRORS
        exit_with GUEST_EXIT_MISMATCH

        .org    GUEST_REAL_DATA - GUEST_REAL_TEXT
        .fill   4096
