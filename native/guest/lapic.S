// lapic: takes interrupts of the local APIC's timer, vector 0x40.
//
// Entry   long mode, ring 0, a stack of 256 bytes, in-kernel irqchip, 4 GiB mapped one to one.
//         rsi  0: periodic, 1 kHz where the APIC's clock runs at 1 GHz (KVM's does), for ever.
//              1: one shot after 1 ms that stays pending: interrupts are off until
//                 GUEST_COMMAND_GO. Then ends with GUEST_EXIT_OK if it came exactly once, else
//                 GUEST_EXIT_MISMATCH.
//              2: one shot after 1 s, in `hlt`: not yet fired when saved. Ends as 1 does.
//              3, 4: as 1 and 2, in TSC-deadline mode, after 2^21 and 2^31 TSC ticks.
// Memory  GUEST_COUNT interrupts served, GUEST_VECTORS by vector, GUEST_PHASE; GUEST_EXTRA the
//         vector of an unexpected interrupt. GUEST_PHASE_WAITING is stored only once the vector is
//         in the APIC's interrupt request register.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT: also GUEST_EXIT_UNSUPPORTED (3, 4) where CPUID
//         has no TSC-deadline timer.
#include "abi.h"
#include "common.inc"
#include "interrupts.inc"

// Intel SDM vol. 3, 11.4.1: the APIC's register page.
#define EOI (LAPIC + 0xb0)
#define SPURIOUS (LAPIC + 0xf0)
#define REQUEST_TIMER (LAPIC + 0x200 + 0x10 * (TIMER_VECTOR / 32))
#define LVT_TIMER (LAPIC + 0x320)
#define INITIAL_COUNT (LAPIC + 0x380)
#define DIVIDE (LAPIC + 0x3e0)
#define MSR_TSC_DEADLINE 0x6e0

        .text
        .globl  _start
_start: cli
        mov     %rsi, %r12
        set_up_interrupts
        set_up_pic 0xff
        mov     $LAPIC, %r13d
        movl    $0x100 | SPURIOUS_VECTOR, SPURIOUS - LAPIC(%r13)
        movl    $0xb, DIVIDE - LAPIC(%r13)      // by 1
        announce

        cmp     $3, %r12
        jae     deadline
        mov     $TIMER_VECTOR, %eax
        test    %r12, %r12
        jnz     1f
        or      $1 << 17, %eax                  // periodic
1:      mov     %eax, LVT_TIMER - LAPIC(%r13)
        mov     $1000000, %eax
        cmp     $2, %r12
        jne     2f
        mov     $1000000000, %eax
2:      mov     %eax, INITIAL_COUNT - LAPIC(%r13)
        jmp     armed

deadline:
        mov     $1, %eax
        xor     %ecx, %ecx
        cpuid
        test    $1 << 24, %ecx
        jnz     3f
        finish  GUEST_EXIT_UNSUPPORTED
3:      movl    $TIMER_VECTOR | 2 << 17, LVT_TIMER - LAPIC(%r13)
        mfence                                  // SDM vol. 3, 11.5.4.1: MMIO before the MSR
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        mov     $1 << 21, %ecx
        mov     $1 << 31, %edx
        cmp     $4, %r12
        cmove   %rdx, %rcx
        add     %rcx, %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        mov     $MSR_TSC_DEADLINE, %ecx
        wrmsr

armed:  test    %r12, %r12
        jz      serve
        test    $1, %r12
        jz      4f

        mov     $1 << (TIMER_VECTOR % 32), %eax
5:      test    %eax, REQUEST_TIMER - LAPIC(%r13)
        jz      5b
        movl    $GUEST_PHASE_WAITING, GUEST_DATA + GUEST_PHASE
        wait_for_go
        movl    $GUEST_PHASE_RUNNING, GUEST_DATA + GUEST_PHASE
        jmp     count_one

4:      sti
        hlt
        cli
        cmpq    $0, GUEST_DATA + GUEST_COUNT
        je      4b

count_one:
        sti
        mov     $20000, %ecx                    // time for a second one that must not come
6:      dec     %ecx
        jnz     6b
        cli
        movl    $GUEST_PHASE_DONE, GUEST_DATA + GUEST_PHASE
        cmpq    $1, GUEST_DATA + GUEST_COUNT
        jne     7f
        finish  GUEST_EXIT_OK
7:      incq    GUEST_DATA + GUEST_ERRORS
        finish  GUEST_EXIT_MISMATCH

serve:  sti
        hlt
        jmp     serve

on_timer:
        incq    GUEST_DATA + GUEST_COUNT
        movl    $0, EOI - LAPIC(%r13)
        iretq

on_irq0:
on_irq4:
        interrupt_tables
