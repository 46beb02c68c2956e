// protected: 32-bit protected mode, holds known values in the integer registers and checks them.
//
// Entry   32-bit protected mode, flat 4 GiB segments, ring 0 or ring 3, paging off or one to one;
//         a stack of 16 bytes. In ring 3 IOPL is 3, or the TSS lets the ports through.
// Holds   register n has 0x11111111 * n + 0x01234567, n from 1 (eax) in the order
//         eax ebx ecx edx esi edi ebp.
// Memory  GUEST_COUNT checks passed, GUEST_ERRORS mismatches, GUEST_EXTRA the register found wrong.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT with GUEST_EXIT_MISMATCH at a mismatch.
//         GUEST_COMMAND_EXIT at GUEST_COMMAND ends it.
#include "abi.h"
#include "held32.inc"

        .macro  report reg, n
wrong\n:
        movl    $\n, GUEST_DATA + GUEST_EXTRA
        jmp     wrong
        .endm
        .macro  exit_with code
.Lexit\@:
        movl    $\code, %eax
        movl    $GUEST_PORT_EXIT, %edx
        outb    %al, %dx
        jmp     .Lexit\@
        .endm

        .code32
        .text
        .globl  _start
_start: movl    $GUEST_PHASE_RUNNING, GUEST_DATA + GUEST_PHASE
        movl    $GUEST_ABI_VERSION, GUEST_DATA + GUEST_VERSION
        movl    $0x534d564b, GUEST_DATA + GUEST_MAGIC          // "KVMS"
        movl    $0x4750414e, GUEST_DATA + GUEST_MAGIC + 4      // "NAPG"
        movb    $'R', %al
        movl    $GUEST_PORT_READY, %edx
        outb    %al, %dx
        each_gpr load

again:  movl    $200, GUEST_DATA + GUEST_SCRATCH
spin:   decl    GUEST_DATA + GUEST_SCRATCH
        jnz     spin
        each_gpr check
        pushl   %eax
        popl    GUEST_DATA + GUEST_SCRATCH
        cmpl    %eax, GUEST_DATA + GUEST_SCRATCH
        jne     wrong
        addl    $1, GUEST_DATA + GUEST_COUNT
        adcl    $0, GUEST_DATA + GUEST_COUNT + 4
        cmpb    $GUEST_COMMAND_EXIT, GUEST_DATA + GUEST_COMMAND
        jne     again
        exit_with GUEST_EXIT_OK

        each_gpr report
wrong:  incl    GUEST_DATA + GUEST_ERRORS
        exit_with GUEST_EXIT_MISMATCH
