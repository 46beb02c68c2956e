// ticks: sleeps from one interrupt of the local APIC's timer, vector 0x40, to the next, and says when
// one comes that is not due.
//
// Entry   long mode, ring 0, a stack of 256 bytes, in-kernel irqchip, 4 GiB mapped one to one.
//         rsi  0: one-shots of 200 us (KVM's APIC clock runs at 1 GHz), each started by the handler
//                 of the one before, so that one that is lost is the last.
//              1: periodic, 1 kHz.
//              2: as 0, by TSC deadlines, 2^19 cycles away.
//              3: one one-shot of 200 us; sleeps for ever after it.
// Memory  GUEST_COUNT interrupts served; GUEST_ERRORS those that came less than 100000 cycles after
//         the timer was started (0, 2, 3; a TSC has 1 GHz at least), or when none was started (3).
//         GUEST_EXTRA the vector of an unexpected interrupt.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT: GUEST_EXIT_UNSUPPORTED (2) where CPUID has no
//         TSC-deadline timer.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

// Intel SDM vol. 3, 11.4.1: the APIC's register page.
#define EOI (LAPIC + 0xb0)
#define SPURIOUS (LAPIC + 0xf0)
#define LVT_TIMER (LAPIC + 0x320)
#define INITIAL_COUNT (LAPIC + 0x380)
#define DIVIDE (LAPIC + 0x3e0)
#define MSR_TSC_DEADLINE 0x6e0

#define STARTED (GUEST_DATA + GUEST_SCRATCH)
#define SOONEST 100000

        .text
        .globl  _start
_start: cli
        mov     %rsi, %r12
        set_up_interrupts
        set_up_pic 0xff
        mov     $LAPIC, %r13d
        movl    $0x100 | SPURIOUS_VECTOR, SPURIOUS - LAPIC(%r13)
        movl    $0xb, DIVIDE - LAPIC(%r13)      // by 1
        cmp     $2, %r12
        jne     1f
        mov     $1, %eax
        xor     %ecx, %ecx
        cpuid
        test    $1 << 24, %ecx
        jnz     1f
        finish  GUEST_EXIT_UNSUPPORTED
1:      announce
        mov     $TIMER_VECTOR, %eax
        mov     %r12d, %ecx
        and     $3, %ecx
        cmp     $3, %ecx
        je      2f
        shl     $17, %ecx                       // the mode, in the register as in rsi
        or      %ecx, %eax
2:      mov     %eax, LVT_TIMER - LAPIC(%r13)
        mfence                                  // SDM vol. 3, 11.5.4.1: MMIO before the MSR
        cmp     $1, %r12
        jne     3f
        movl    $1000000, INITIAL_COUNT - LAPIC(%r13)
        jmp     serve
3:      call    start
serve:  sti
        hlt
        jmp     serve

// Destroys rax, rcx, rdx.
start:  rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     %rax, STARTED
        cmp     $2, %r12
        je      4f
        movl    $200000, INITIAL_COUNT - LAPIC(%r13)
        ret
4:      add     $1 << 19, %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        mov     $MSR_TSC_DEADLINE, %ecx
        wrmsr
        ret

on_timer:
        incq    GUEST_DATA + GUEST_COUNT
        cmp     $1, %r12
        je      7f
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        sub     STARTED, %rax
        cmp     $SOONEST, %rax
        jae     5f
        incq    GUEST_DATA + GUEST_ERRORS
5:      cmp     $3, %r12
        jne     6f
        cmpq    $1, GUEST_DATA + GUEST_COUNT
        je      7f
        incq    GUEST_DATA + GUEST_ERRORS
        jmp     7f
6:      call    start
7:      movl    $0, EOI - LAPIC(%r13)
        iretq

on_irq0:
on_irq4:
        interrupt_tables
