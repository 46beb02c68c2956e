// registers: holds known values in every register and checks them over and over. A save and a
// restore that lose or swap one is found by the guest itself.
//
// Entry   long mode, ring 3 or ring 0; a stack of 64 bytes. In ring 0 only integer registers are
//         loaded: hosts that emulate ring 0 have no SSE there.
// Holds   rax to r15 but rsp: register n holds 0x1111111111111111 * n + 0x0123456789abcdef, n
//         from 1 (rax) in the order rax rbx rcx rdx rsi rdi rbp r8 .. r15;
//         rflags CF, PF, AF, ZF, SF, OF as in 0x8d5;
//         GUEST_FEATURE_SSE: xmm n holds the same pattern for 16 + 2n (low) and 17 + 2n (high),
//         MXCSR 0x5fb0 (round up, all masked, PE and UE sticky flags set);
//         x87: control word 0x0b7f (round up), st0 = pi, st1 = 1;
//         GUEST_FEATURE_AVX (where CPUID and XCR0 say so): the upper half of ymm n holds xmm n's
//         halves complemented.
// Memory  GUEST_COUNT checks passed, GUEST_ERRORS mismatches, GUEST_FEATURES what is held.
//         GUEST_EXTRA: number of the register last found wrong (see above; 100 + n: upper ymm n,
//         200 rflags, 201 MXCSR, 202 x87).
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT with GUEST_EXIT_MISMATCH at a mismatch.
//         GUEST_COMMAND_EXIT at GUEST_COMMAND ends it.
#include "abi.h"
#include "common.inc"

#define SPIN (GUEST_DATA + GUEST_SCRATCH)
#define STACK_CHECK (GUEST_DATA + GUEST_SCRATCH + 8)
#define SAVED (GUEST_DATA + GUEST_SCRATCH + 0x40)
#define FLAGS 0x8d5

        .macro  each_gpr do
        \do     rax, 1
        \do     rbx, 2
        \do     rcx, 3
        \do     rdx, 4
        \do     rsi, 5
        \do     rdi, 6
        \do     rbp, 7
        \do     r8, 8
        \do     r9, 9
        \do     r10, 10
        \do     r11, 11
        \do     r12, 12
        \do     r13, 13
        \do     r14, 14
        \do     r15, 15
        .endm
        .macro  load reg, n
        mov     known + 8 * \n, %\reg
        .endm
        .macro  check reg, n
        cmp     known + 8 * \n, %\reg
        jne     wrong\n
        .endm
        .macro  report reg, n
wrong\n:
        movl    $\n, GUEST_DATA + GUEST_EXTRA
        jmp     wrong
        .endm

        .text
        .globl  _start
_start: xor     %r12d, %r12d
        mov     %cs, %eax
        test    $3, %eax
        jz      detected
        mov     $GUEST_FEATURE_SSE, %r12d
        mov     $1, %eax
        xor     %ecx, %ecx
        cpuid
        and     $0x18000000, %ecx               // OSXSAVE and AVX
        cmp     $0x18000000, %ecx
        jne     detected
        xor     %ecx, %ecx
        xgetbv
        and     $6, %eax                        // SSE and AVX state enabled
        cmp     $6, %eax
        jne     detected
        or      $GUEST_FEATURE_AVX, %r12d
detected:
        mov     %r12, GUEST_DATA + GUEST_FEATURES
        announce
        test    $GUEST_FEATURE_SSE, %r12d
        jz      integer

        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  known + 8 * (16 + 2 * \n), %xmm\n
        .endr
        ldmxcsr mxcsr
        fninit
        fldcw   control
        fld1
        fldpi
        test    $GUEST_FEATURE_AVX, %r12d
        jz      integer
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vinsertf128 $1, complement + 16 * \n, %ymm\n, %ymm\n
        .endr

integer:
        each_gpr load

// Long enough that nearly every stop falls here, where all registers hold their values.
again:  movl    $20000, SPIN
        testl   $GUEST_FEATURE_SSE, GUEST_DATA + GUEST_FEATURES
        jnz     spin
        movl    $200, SPIN
spin:   decl    SPIN
        jnz     spin

        push    $FLAGS
        popfq
        .rept   32
        nop
        .endr
        pushfq
        popq    STACK_CHECK
        each_gpr check
        mov     STACK_CHECK, %rax
        and     $FLAGS, %eax
        cmp     $FLAGS, %eax
        jne     wrong_flags
        mov     known + 8, %rax

        testl   $GUEST_FEATURE_SSE, GUEST_DATA + GUEST_FEATURES
        jz      good
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  %xmm\n, SAVED
        movl    $16 + 2 * \n, GUEST_DATA + GUEST_EXTRA
        mov     SAVED, %rax
        cmp     known + 8 * (16 + 2 * \n), %rax
        jne     wrong
        incl    GUEST_DATA + GUEST_EXTRA
        mov     SAVED + 8, %rax
        cmp     known + 8 * (17 + 2 * \n), %rax
        jne     wrong
        .endr
        movl    $201, GUEST_DATA + GUEST_EXTRA
        stmxcsr SAVED
        cmpl    $0x5fb0, SAVED
        jne     wrong
        incl    GUEST_DATA + GUEST_EXTRA
        fnstcw  SAVED
        cmpw    $0x0b7f, SAVED
        jne     wrong
// Stored without popping: fst of 64 bits, compared with what the constants are as doubles.
        fstl    SAVED
        mov     SAVED, %rax
        cmp     pi, %rax
        jne     wrong
        fxch
        fstl    SAVED
        fxch
        mov     SAVED, %rax
        cmp     one, %rax
        jne     wrong

        testl   $GUEST_FEATURE_AVX, GUEST_DATA + GUEST_FEATURES
        jz      restored
        .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vextractf128 $1, %ymm\n, SAVED
        movl    $100 + \n, GUEST_DATA + GUEST_EXTRA
        mov     SAVED, %rax
        cmp     complement + 16 * \n, %rax
        jne     wrong
        mov     SAVED + 8, %rax
        cmp     complement + 16 * \n + 8, %rax
        jne     wrong
        .endr
restored:
        movl    $0, GUEST_DATA + GUEST_EXTRA
        mov     known + 8, %rax
good:   incq    GUEST_DATA + GUEST_COUNT
        cmpb    $GUEST_COMMAND_EXIT, GUEST_DATA + GUEST_COMMAND
        jne     again
        finish  GUEST_EXIT_OK

        each_gpr report
wrong_flags:
        movl    $200, GUEST_DATA + GUEST_EXTRA
wrong:  incq    GUEST_DATA + GUEST_ERRORS
        finish  GUEST_EXIT_MISMATCH

        .section .rodata
        .balign 16
known:  n = 0
        .rept   48
        .quad   0x1111111111111111 * n + 0x0123456789abcdef
        n = n + 1
        .endr
complement:
        n = 16
        .rept   32
        .quad   ~(0x1111111111111111 * n + 0x0123456789abcdef)
        n = n + 1
        .endr
one:    .quad   0x3ff0000000000000
pi:     .quad   0x400921fb54442d19              // pi rounded up: the control word says so
mxcsr:  .long   0x5fb0
control:
        .word   0x0b7f
