// secrets: hides a secret wherever a guest can put one, or writes down all that it can see. What a clone
// hid must not be in what the next one sees.
//
// Entry   long mode, ring 3 (FPU and SSE registers are used) or ring 0 (debug registers and MSRs); stack not
//         used.
//         rdi  bytes of RAM, all of it below the hole.
//         rsi  not 0: there is an in-kernel irqchip, its PIC and PIT are used too, in ring 0 its LAPIC.
// Memory  GUEST_COMMAND, written by the host, set to 0 when it is done, and then GUEST_COUNT counts up:
//         GUEST_COMMAND_GO      looks: registers as they were while it waited, FPU and SSE state, and what
//                               device, debug and machine specific registers give go to GUEST_PAGES
//                               (a page at most); in ring 3 the sum of all words above that page, each
//                               times its address, goes to GUEST_CHECKSUM.
//         GUEST_COMMAND_REFILL  hides the 32 bytes at GUEST_SCRATCH: at the 8 addresses at GUEST_LINES, in
//                               registers, devices, and in what it sends to the serial and debug ports. It
//                               waits with the secret in all its registers.
//         GUEST_COMMAND_EXIT    ends it with GUEST_EXIT_OK.
// Ports   GUEST_PORT_READY once, GUEST_PORT_EXIT, and those of the devices.
#include "abi.h"
#include "common.inc"

#define SECRET (GUEST_DATA + GUEST_SCRATCH)
#define RING (GUEST_DATA + GUEST_EXTRA)
#define IRQCHIP (GUEST_DATA + GUEST_LENGTH)
#define RAM (GUEST_DATA + GUEST_SEED)
#define LAPIC 0xfee00000
#define LAPIC_TPR 0x80
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_COUNT 0x380
#define LAPIC_TIMER_DIVIDER 0x3e0
#define I8042_DATA 0x60
#define I8042_COMMAND 0x64
#define CMOS_INDEX 0x70
#define CMOS_DATA 0x71
#define CMOS_RAM 0x40

        .macro  each_gpr do
        .irp    reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        \do     \reg
        .endr
        .endm

// Those that every guest may write and that keep 63 bits or so: STAR, LSTAR, CSTAR, FMASK, the bases of FS
// and GS, and SYSENTER's.
        .macro  each_msr do
        .irp    msr, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0x174, 0x175, 0x176
        \do     \msr
        .endr
        .endm

        .text
        .globl  _start
_start: mov     %cs, %eax
        and     $3, %eax
        mov     %rax, RING
        mov     %rsi, IRQCHIP
        mov     %rdi, RAM
        announce

// No register is used here, so that they stay as they are.
wait:   cmpb    $0, GUEST_DATA + GUEST_COMMAND
        je      wait
        cmpb    $GUEST_COMMAND_REFILL, GUEST_DATA + GUEST_COMMAND
        je      hide
        cmpb    $GUEST_COMMAND_EXIT, GUEST_DATA + GUEST_COMMAND
        je      leave

        .macro  see reg
        mov     %\reg, GUEST_PAGES + seen
        seen = seen + 8
        .endm
        .macro  see_port port
        mov     $\port, %edx
        inb     %dx, %al
        mov     %al, GUEST_PAGES + seen
        seen = seen + 1
        .endm
        .macro  see_msr msr
        mov     $\msr, %ecx
        rdmsr
        mov     %eax, GUEST_PAGES + seen
        mov     %edx, GUEST_PAGES + seen + 4
        seen = seen + 8
        .endm
        .macro  see_lapic register
        mov     $LAPIC + \register, %ecx
        mov     (%rcx), %eax
        mov     %eax, GUEST_PAGES + seen
        seen = seen + 4
        .endm
        .macro  see_debug number
        mov     %dr\number, %rax
        mov     %rax, GUEST_PAGES + seen
        seen = seen + 8
        .endm

look:   seen = 0
        each_gpr see
        cmpb    $0, RING
        je      1f
        fxsave64 GUEST_PAGES + 0x200
// The interrupt identification and the data port change when they are read: the data port last.
1:      seen = 0x400
        .irp    register, 7, 1, 3, 4, 5, 6, 2, 0
        see_port GUEST_PORT_SERIAL + \register
        .endr
        see_port I8042_COMMAND
        see_port I8042_DATA
        see_port CMOS_INDEX
        .irp    at, 0, 1, 2, 3, 4, 5, 6, 7
        mov     $CMOS_INDEX, %edx
        mov     $CMOS_RAM + \at, %eax
        outb    %al, %dx
        see_port CMOS_DATA
        .endr
        cmpb    $0, IRQCHIP
        je      2f
        see_port 0x21
        see_port 0xa1
        cmpb    $0, RING
        jne     2f
        seen = 0x480
        .irp    register, LAPIC_TPR, LAPIC_TIMER, LAPIC_TIMER_COUNT
        see_lapic \register
        .endr
2:      cmpb    $0, RING
        jne     3f
        seen = 0x500
        each_msr see_msr
        see_debug 0
        see_debug 1
        see_debug 2
        see_debug 3
        jmp     done
3:      xor     %eax, %eax
        mov     $GUEST_PAGES + 0x1000, %ecx
4:      mov     (%rcx), %rdx
        imul    %rcx, %rdx
        add     %rdx, %rax
        add     $8, %rcx
        cmp     RAM, %rcx
        jb      4b
        mov     %rax, GUEST_DATA + GUEST_CHECKSUM
        jmp     done

        .macro  tell port
        mov     $\port, %edx
        mov     %bl, %al
        outb    %al, %dx
        ror     $8, %rbx
        .endm
        .macro  set_lapic register, value
        mov     $LAPIC + \register, %ecx
        movl    \value, (%rcx)
        .endm
        .macro  hide_msr msr
        mov     $\msr, %ecx
        mov     SECRET, %eax
        mov     SECRET + 4, %edx
        and     $0x7fff, %edx                   // canonical
        wrmsr
        .endm

hide:   mov     SECRET, %r8
        mov     SECRET + 8, %r9
        mov     SECRET + 16, %r10
        mov     SECRET + 24, %r11
        xor     %ecx, %ecx
5:      mov     GUEST_DATA + GUEST_LINES(, %rcx, 8), %rdi
        mov     %r8, (%rdi)
        mov     %r9, 8(%rdi)
        mov     %r10, 16(%rdi)
        mov     %r11, 24(%rdi)
        inc     %ecx
        cmp     $8, %ecx
        jb      5b

        mov     %r8, %rbx
        mov     $GUEST_PORT_SERIAL + 2, %edx    // FIFOs on, for what the host types
        mov     $1, %al
        outb    %al, %dx
        tell    GUEST_PORT_SERIAL + 7
        mov     $GUEST_PORT_SERIAL + 3, %edx    // the divisor
        mov     $0x83, %al
        outb    %al, %dx
        tell    GUEST_PORT_SERIAL
        tell    GUEST_PORT_SERIAL + 1
        mov     $GUEST_PORT_SERIAL + 3, %edx
        mov     $3, %al
        outb    %al, %dx
        .rept   8
        tell    GUEST_PORT_SERIAL
        tell    GUEST_PORT_READY
        .endr
        mov     $I8042_COMMAND, %edx            // the controller's output buffer
        mov     $0xd2, %al
        outb    %al, %dx
        tell    I8042_DATA
        .irp    at, 0, 1, 2, 3, 4, 5, 6, 7
        mov     $CMOS_INDEX, %edx
        mov     $CMOS_RAM + \at, %eax
        outb    %al, %dx
        tell    CMOS_DATA
        .endr

        cmpb    $0, IRQCHIP
        je      6f
        mov     $0x43, %edx                     // channel 2, mode 0; channel 0, whose interrupt is pending
        mov     $0xb0, %al
        outb    %al, %dx
        tell    0x42
        tell    0x42
        mov     $0x43, %edx
        mov     $0x30, %al
        outb    %al, %dx
        mov     $0x40, %edx
        mov     $1, %al
        outb    %al, %dx
        xor     %eax, %eax
        outb    %al, %dx
        tell    0xa1
        cmpb    $0, RING
        jne     6f
        set_lapic LAPIC_SPURIOUS, $0x1ff
        movzbl  %r9b, %eax
        set_lapic LAPIC_TPR, %eax
        set_lapic LAPIC_TIMER, $0x31            // one shot, interrupt 0x31, pending at once or later
        set_lapic LAPIC_TIMER_DIVIDER, $0xb
        mov     SECRET + 9, %eax
        set_lapic LAPIC_TIMER_COUNT, %eax

6:      cmpb    $0, RING
        jne     7f
        each_msr hide_msr
        mov     %r8, %dr0
        mov     %r9, %dr1
        mov     %r10, %dr2
        mov     %r11, %dr3
        jmp     8f
7:      .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        movups  SECRET + 16 * (\n % 2), %xmm\n
        .endr
        fninit
        .rept   8
        fildll  SECRET
        .endr
        movzwl  SECRET + 2, %eax                // all exceptions masked
        and     $0x603f, %eax
        or      $0x1f80, %eax
        mov     %eax, GUEST_DATA + GUEST_CURSOR
        ldmxcsr GUEST_DATA + GUEST_CURSOR

8:      .irp    reg, rax, rcx, rsi, r12
        mov     %r8, %\reg
        .endr
        .irp    reg, rbx, rdi, r13, r15
        mov     %r10, %\reg
        .endr
        .irp    reg, rdx, rbp, r14
        mov     %r11, %\reg
        .endr
done:   movb    $0, GUEST_DATA + GUEST_COMMAND
        incq    GUEST_DATA + GUEST_COUNT
        jmp     wait

leave:  finish  GUEST_EXIT_OK
